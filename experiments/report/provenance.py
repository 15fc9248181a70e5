"""Provenance of records: code, data, devices, and the command that repeats the run."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adaptive_nets.runtime.progress import format_seconds
from experiments.report.markup import Markup, code, element, folded, join, scrolled
from experiments.suite import config as config_lib
from experiments.suite.groups import Group, changes
from experiments.suite.records import Record, mean_and_deviation


def command(group: Group) -> str:
    """Returns the command that repeats the runs of a group."""
    first = group.records[0]
    seeds = max(record.seed for record in group.records) + 1
    words = ["adaptive-nets", "run", first.experiment, "--preset", first.preset]
    words += ["--seeds", str(seeds)]
    values = config_lib.flat(first.config)
    # The source of the data is not part of the configuration's identity, but the command needs it.
    source = [] if values.get("data.source", "auto") == "auto" else ["data.source"]
    for name in dict.fromkeys((*first.changed, *source)):
        words += _flag(name, values.get(name))
    return " ".join(shlex.quote(str(word)) for word in words)


def _flag(name: str, value: Any) -> list[str]:
    flag = config_lib.flag(name)
    if isinstance(value, bool):
        group, _, field = flag.removeprefix("--").rpartition(".")
        return [flag if value else f"--{group}.no-{field}"]
    values = value if isinstance(value, list) else [value]
    return [flag, *map(str, values)]


def provenance(group: Group, anchor: str) -> Markup:
    """Returns the provenance of the records of a group, folded."""
    first = group.records[0]
    dataset, devices = first.dataset, first.devices
    complete = "complete" if dataset["complete"] else "not complete"
    facts = {
        "command": code(command(group)),
        "seeds": ", ".join(str(record.seed) for record in group.records),
        "code": _each(_commit(r) for r in group.records),
        "configuration": f"{first.config_hash}" + _changed(first),
        "data": (
            f"{dataset['name']} ({dataset['source']}, {complete}): {dataset['train']:,} training "
            f"and {dataset['test']:,} test images, fingerprint {dataset['fingerprint'][:12]}"
        ),
        "devices": _each(
            f"{r.devices['count']} × {r.devices['kind']}, {r.devices['cpu_cores']} processor cores"
            for r in group.records
        ),
        "time": _times(group.records),
        "packages": _each(
            ", ".join(f"{name} {version}" for name, version in r.packages.items())
            for r in group.records
        ),
        "kernels": _each(_kernels_text(r.kernels) for r in group.records),
        "finished": _each(record.finished for record in group.records),
    }
    if first.tuned_table:
        facts["tuned table"] = ", ".join(first.tuned_table)
    if first.inputs:
        facts["inputs"] = "; ".join(_input_text(found) for found in first.inputs)
    if first.machine is not None:
        facts["load average"] = _each(_load_text(r.machine) for r in group.records)
    if devices.get("processes", 1) > 1:
        facts["processes"] = str(devices["processes"])
    listed = [join((element("dt", name), element("dd", fact))) for name, fact in facts.items()]
    seeds = f"{len(group.records)} seed{'s' if len(group.records) > 1 else ''}"
    size = f"{first.preset}, {seeds}, {dataset['train']:,} images{_changed(first)}"
    name = element("strong", first.experiment)
    summary = join((name, " ", element("span", size, class_="about")))
    return folded(
        summary,
        # The id is inside the folded element: browsers open an element whose content is linked.
        element("dl", *listed, id=anchor),
        _measured(group),
        folded("Configuration", element("pre", _values(first), tabindex="0")),
        class_="origin",
    )


def _kernels_text(kernels: Mapping[str, Any] | None) -> str:
    if kernels is None:
        return "not recorded"
    parts = (
        f"{name}: {used if isinstance(used, str) else ', '.join(used)}"
        for name, used in kernels.items()
    )
    return "; ".join(parts) or "no kernel of this suite ran"


def _input_text(found: Mapping[str, Any]) -> str:
    """Returns the description of one run input: flag, kind, origin, digest."""
    origin = [found["experiment"]] if found.get("experiment") else []
    origin += [f"{name} {found[name]}" for name in ("seed", "step") if found.get(name) is not None]
    text = f"{config_lib.flag(found['flag'])}: {found['kind']}"
    return (
        f"{text} ({', '.join(map(str, origin))}) {found['digest']}"
        if origin
        else (f"{text} {found['digest']}")
    )


def _load_text(machine: Mapping[str, Any] | None) -> str:
    if machine is None:
        return "not recorded"
    start, end = (
        ", ".join(f"{value:.2f}" for value in machine[name]) or "unknown"
        for name in ("load_at_start", "load_at_end")
    )
    return f"{start} at the start, {end} at the end (over 1 and 5 minutes)"


def _each(texts: Iterable[str]) -> str:
    """Joins the distinct texts of several seeds."""
    return "; ".join(dict.fromkeys(texts))


def _commit(record: Record) -> str:
    commit, dirty = record.code["commit"], record.code["dirty"]
    if commit is None:
        return "outside a checkout, commit unknown"
    return f"commit {commit[:12]}" + (", with uncommitted changes" if dirty else "")


def _changed(record: Record) -> str:
    return f", changed {changes(record)}" if record.changed else ""


def _times(records: Sequence[Record]) -> str:
    each = ", ".join(_time(record.seconds) for record in records)
    steps = _each(f"{record.steps:,}" for record in records)
    if len(records) == 1:
        return f"{each} for {steps} steps"
    return f"{each} for {steps} steps each; {_time(sum(r.seconds for r in records))} in total"


def _time(seconds: float) -> str:
    return f"{format_seconds(seconds)} {'h' if round(seconds) >= 3600 else 'min'}"


def _values(record: Record) -> str:
    flat = config_lib.flat(record.config)
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in sorted(flat.items()))


def _measured(group: Group) -> Markup:
    """Returns a table of all metrics of the runs, including those without a paper value."""
    names = dict.fromkeys(name for record in group.records for name in record.metrics)
    rows = []
    for name in names:
        metrics = [m for record in group.records if (m := record.metric(name)) is not None]
        rows.append(
            element(
                "tr",
                element("th", name, scope="row"),
                element("td", measured_text(group, name), class_="number"),
                element("td", metrics[0].unit),
                element("td", _each(f"{m.count:,}" for m in metrics), class_="number"),
                element("td", _each(m.note for m in metrics if m.note)),
            )
        )
    heads = (("measure", ""), ("value", "number"), ("unit", ""), ("count", "number"), ("note", ""))
    head = element(
        "tr", *(element("th", text, scope="col", class_=kind or None) for text, kind in heads)
    )
    table = element(
        "table",
        element("caption", "All metrics"),
        element("thead", head),
        element("tbody", *rows),
        class_="measured",
    )
    return scrolled(table, label=f"All metrics of {group.records[0].experiment}")


def measured_text(group: Group, name: str) -> str:
    """Formats mean and standard deviation over seeds; ∞ if the value of a seed is infinite."""
    metrics = [m for record in group.records if (m := record.metric(name)) is not None]
    if any(m.value is None for m in metrics):
        return "∞" if any(m.note.startswith("infinite") for m in metrics) else "–"
    mean, deviation = mean_and_deviation([m.value for m in metrics if m.value is not None])
    if len(metrics) == 1:
        return _number(mean)
    if deviation == 0:
        return f"{_number(mean)} ± 0"
    # Two significant digits of the deviation, and as many decimals of the mean.
    decimals = min(max(1 - math.floor(math.log10(deviation)), 0), 8)
    return f"{mean:,.{decimals}f} ± {deviation:,.{decimals}f}"


def _number(value: float) -> str:
    if value == round(value):
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}"
