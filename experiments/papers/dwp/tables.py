"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from experiments.papers.dwp.configs import convergence, features, few_shot
from experiments.papers.dwp.configs.presets import TITLES
from experiments.shared.comparisons import compared, difference_text, within
from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import load_paper

PAPER = "dwp"
NONE = "Not run: there is no record.\n"
WORDS = {
    "dwp": "deep weight prior",
    "log-uniform": "log-uniform",
    "standard-normal": "standard normal",
    "gaussian": "learnt Gaussian",
    "deterministic": "no prior, VAE init",
    "dwp-xavier": "deep weight prior, Xavier init",
    "dwp-filters": "deep weight prior, source kernels",
    "normal-vae": "standard normal, VAE init",
    "normal-xavier": "standard normal, Xavier init",
    "none-vae": "no prior, VAE init",
    "none-xavier": "no prior, Xavier init",
}
# (better, worse) by the paper, keys of `WORDS`.
_CLAIMS = {
    "mnist": (
        ("dwp", "log-uniform"), ("log-uniform", "standard-normal"), ("dwp", "gaussian"),
        ("dwp", "deterministic"), ("dwp", "dwp-xavier"),
    ),
    "cifar10": (("dwp", "log-uniform"), ("dwp", "standard-normal")),
    "shapes": (("dwp", "dwp-xavier"), ("dwp", "normal-vae"), ("dwp", "none-xavier")),
}  # fmt: skip
_SIZES = ("7x7", "5x5", "16x16")


def priors_table(records: Sequence[Record]) -> str:
    """Renders what the priors are worth on held-out slices, one line per kernel size."""
    rows = []
    for target in TITLES:
        for group in groups_of(records, f"{PAPER}.priors.{target}"):
            sizes = [size for size in _SIZES if group.values(f"slices.{size}")]
            for i, size in enumerate(sizes):
                gain, error = (_mean(group, f"{name}.{size}", 2) for name in ("gain", "gain_error"))
                rows.append(
                    (
                        TITLES[target] if i == 0 else "", size,
                        _mean(group, f"slices.{size}", 0), _mean(group, f"share_kept.{size}", 1),
                        *(_mean(group, f"{n}.{size}", 2) for n in ("elbo", "log_density")),
                        _mean(group, f"gaussian.{size}", 2), f"{gain} ± {error}",
                        _mean(group, f"ordered.{size}", 1),
                        group.describe() if i == 0 else "",
                    )
                )  # fmt: skip
    header = (
        "target", "slices", "kept", "of all, %", "ELBO", "log-density", "Gaussian",
        "ELBO less Gaussian", "ELBO below log-density, % of slices", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(2, 9)) if rows else NONE


def few_labels_table(records: Sequence[Record], *, target: str) -> str:
    """Renders accuracy over the number of labels, paper's value and ours, one line per prior."""
    names = [
        (name, width)
        for width in (few_shot.SHAPES_WIDTHS if target == "shapes" else (0,))
        for name in few_shot.OF_TARGET[target]
        if width != few_shot.SHAPES_WIDTHS[1] or name in ("dwp", "dwp-xavier")
    ]
    rows, runs = [], set()
    for name, width in names:
        cells = []
        for labels in few_shot.LABELS[target]:
            row = few_shot.name_of(target, labels, name, width)
            paper = load_paper(PAPER).rows[row].number("accuracy")
            found = groups_of(records, f"{PAPER}.{row}")
            cells += [render.number(paper, 1), _mean(found[0], "accuracy", 1) if found else "–"]
            runs |= {_splits_text(group) for group in found[:1]}
        label = WORDS[name] + (f", {width} channels" if width else "")
        rows.append((label, *cells))
    heads = [
        cell for labels in few_shot.LABELS[target] for cell in (f"{labels:,} labels: paper", "ours")
    ]
    table = render.markdown_table(("prior", *heads), rows, range(1, 1 + len(heads)))
    return f"{table}\nRuns: {'; '.join(sorted(runs))}.\n" if runs else NONE


def differences_table(records: Sequence[Record], *, target: str) -> str:
    """Renders paired differences between priors over splits beside the paper's differences."""
    rows = []
    width = few_shot.SHAPES_WIDTHS[0] if target == "shapes" else 0
    for labels in few_shot.LABELS[target]:
        for better, worse in _CLAIMS[target]:
            ids = [few_shot.name_of(target, labels, name, width) for name in (better, worse)]
            first, second = (f"{PAPER}.{name}" for name in ids)
            found = compared(records, first, second, "accuracy")
            if found is None or found[1].preset == "smoke":
                continue
            values = [load_paper(PAPER).rows[name].number("accuracy") for name in ids]
            known = None not in values
            paper = f"{(values[0] or 0) - (values[1] or 0):+.1f}" if known else "–"
            difference = found[0]
            error = "–" if difference.error is None else f"{difference.error:.2f}"
            rows.append(
                (
                    f"{labels:,}", f"{WORDS[better]} less {WORDS[worse]}", paper,
                    difference_text(difference), error, str(difference.count),
                    within(difference, 0.0, 100.0),
                )
            )  # fmt: skip
    header = (
        "labels", "difference", "paper, points", "ours, points [95 %]", "standard error", "splits",
        "the first is better",
    )  # fmt: skip
    return render.markdown_table(header, rows, (0, 2, 3, 4, 5)) if rows else NONE


def features_table(records: Sequence[Record]) -> str:
    """Renders the accuracy of frozen convolutions over widths, paper's value and ours."""
    rows, runs = [], set()
    for target, scales in features.SCALES.items():
        for scale in scales:
            cells = []
            for init in features.INITS:
                row = features.name_of(target, scale, init)
                found = groups_of(records, f"{PAPER}.{row}")
                paper = load_paper(PAPER).rows[row].number("accuracy")
                cells += [render.number(paper, 2), _mean(found[0], "accuracy", 2) if found else "–"]
                runs |= {group.describe() for group in found[:1]}
            first, second = (
                f"{PAPER}.{features.name_of(target, scale, init)}" for init in ("dwp", "xavier")
            )
            pair = compared(records, first, second, "accuracy")
            usable = pair is not None and pair[1].preset != "smoke"
            cells.append(difference_text(pair[0]) if pair and usable else "–")
            rows.append((TITLES[target] if scale == scales[0] else "", str(scale), *cells))
    heads = [cell for init in features.INITS for cell in (f"{features.WORDS[init]}: paper", "ours")]
    header = ("data", "width", *heads, "prior less Xavier, points [95 %]")
    table = render.markdown_table(header, rows, range(2, 9))
    return f"{table}\nRuns: {'; '.join(sorted(runs))}.\n" if runs else NONE


def convergence_table(records: Sequence[Record]) -> str:
    """Renders the first steps, paper's value and ours, one line per case and initialisation."""
    rows, runs = [], set()
    for case, (title, _, _, _, measure, steps) in convergence.CASES.items():
        for init in features.INITS:
            row = f"convergence.{case}-{init}"
            found = groups_of(records, f"{PAPER}.{row}")
            runs |= {group.describe() for group in found[:1]}
            values = []
            for step in steps:
                paper = load_paper(PAPER).rows[row].number(f"{measure}.{step}")
                ours = _mean(found[0], f"{measure}.{step}", 1) if found else "–"
                values.append(f"{step}: {render.number(paper, 1)} / {ours}")
            first = init == next(iter(features.INITS))
            unit = "%" if measure == "accuracy" else "nats"
            rows.append(
                (f"{title}, {unit}" if first else "", features.WORDS[init], ", ".join(values))
            )
    table = render.markdown_table(("network", "initialisation", "step: paper / ours"), rows, ())
    return f"{table}\nRuns: {'; '.join(sorted(runs))}.\n" if runs else NONE


def time_table(records: Sequence[Record]) -> str:
    """Renders the time of a step of all source networks."""
    rows = [
        (
            str(group.records[0].config["sources"]["count"]),
            _mean(group, "seconds_together", 3), _mean(group, "seconds_apart", 3),
            _mean(group, "together_speed_up", 2), group.describe(),
        )
        for group in groups_of(records, f"{PAPER}.sources.time")
    ]  # fmt: skip
    header = (
        "networks", "one program, s", "one after the other, s", "apart over together", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(4)) if rows else NONE


def groups_of(records: Sequence[Record], experiment: str) -> list[Group]:
    """Returns the groups of an experiment, the largest runs first, without smoke runs."""
    groups = group_records([r for r in records if r.experiment == experiment])
    return [group for group in groups if not group.row_changes and group.preset != "smoke"]


def _mean(group: Group, name: str, digits: int) -> str:
    """Formats mean and deviation over seeds; "–" without a value."""
    values = group.values(name)
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:,.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


def _splits_text(group: Group) -> str:
    """Formats preset, splits and steps; the record counts the images that were divided."""
    count = len(group.records)
    splits = f"{count} split{'s' if count > 1 else ''}"
    return f"preset {group.preset}, {splits}, {group.records[0].steps:,} steps"


PARTS = {
    "priors": priors_table,
    "mnist-labels": functools.partial(few_labels_table, target="mnist"),
    "mnist-differences": functools.partial(differences_table, target="mnist"),
    "cifar10-labels": functools.partial(few_labels_table, target="cifar10"),
    "shapes-labels": functools.partial(few_labels_table, target="shapes"),
    "shapes-differences": functools.partial(differences_table, target="shapes"),
    "random-features": features_table,
    "first-steps": convergence_table,
    "sources-time": time_table,
}
