"""Markdown tables of networks of adaptive depth, rendered from records."""

from __future__ import annotations

import re
from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation


def cost_table(records: Sequence[Record], *, prefix: str | tuple[str, ...]) -> str:
    """Formats accuracy and cost of runs, beside the plain network of the same training length.

    Args:
        records: records of any experiments, including those of plain networks.
        prefix: prefix of the ids in the table, or several.
    """
    everything = group_records(records)
    groups = [
        g
        for g in everything
        if g.records[0].experiment.startswith(prefix)
        and "schedule" in g.records[0].config  # what trained nothing has tables of its own
        and "taus" not in g.records[0].config.get("halting", {})
    ]
    plain = _plain(everything)
    rows = []
    for group in groups:
        beside = plain.get(_length(group))
        halting = group.records[0].config.get("halting")
        rows.append(
            (
                f"`{group.records[0].experiment}`",
                group.describe(),
                f"{halting['tau']:g}" if halting else "–",
                text_of(group, "test_accuracy", 2),
                " ± ".join(text_of(group, n, 0, 1e-6, 2) for n in ("flops", "flops_std")),
                _share(group, beside),
                " / ".join(
                    text_of(group, f"units.block{i}", 0, 1.0, 2)
                    for i in range(1, 5)
                    if group.values(f"units.block{i}")
                )
                or "all",
                text_of(group, "dead_units", 0, 1.0, 0),
                text_of(group, "mode_gap", 2),
            )
        )
    header = (
        "experiment", "runs", "τ", "test accuracy, %", "MFLOPs per image", "of the plain network",
        "units per block", "dead units", "modes apart, points",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, 9)))


def ponder_table(records: Sequence[Record], *, prefix: str) -> str:
    """Formats the units spent on the central half of the images and on the other half.

    Args:
        records: records of any experiments.
        prefix: prefix of the ids in the table.
    """
    rows = []
    for group in group_records(records):
        values = [group.values(f"ponder_{name}") for name in ("centre", "border", "centre_more")]
        if not all(values) or not group.records[0].experiment.startswith(prefix):
            continue
        centre, border, more = (mean_and_deviation(v)[0] for v in values)
        first = group.records[0]
        rows.append(
            (
                f"`{first.experiment}`{group.row_text}", f"{first.config['halting']['tau']:g}",
                f"{centre:.3f}", f"{border:.3f}", f"{centre / border:.3f}", f"{more:.1f}",
            )
        )  # fmt: skip
    header = (
        "experiment", "τ", "central half, units", "the other half, units", "ratio",
        "images with more in the centre, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4, 5))


def tuned_table(records: Sequence[Record], *, prefix: str) -> str:
    """Formats the networks that were tuned from trained plain ones, a row for each tau.

    Args:
        records: records of any experiments.
        prefix: prefix of the ids in the table.
    """
    rows = []
    for group in group_records(records):
        first = group.records[0]
        if not first.experiment.startswith(prefix) or "taus" not in first.config["halting"]:
            continue
        plain = [text_of(group, name, 0, scale, digits) for name, scale, digits in _PLAIN]
        rows.append((f"`{first.experiment}`", group.describe(), "plain", *plain, "100.0", *"––––"))
        for tau in first.config["halting"]["taus"]:
            end = f".tau{tau:g}"
            flops = [text_of(group, f"{n}{end}", 0, 1e-6, 1) for n in ("flops", "flops_std")]
            rows.append(
                (
                    group.row_text.removeprefix("; "), "", f"{tau:g}",
                    text_of(group, f"test_accuracy{end}", 2),
                    " ± ".join(flops),
                    text_of(group, f"flops_share{end}", 1),
                    *(text_of(group, f"{name}{end}", digits) for name, digits in _DEPTH),
                )
            )  # fmt: skip
    header = (
        "experiment", "runs", "τ", "test accuracy, %", "MFLOPs per image", "of plain, %",
        "centre / border", "r with loss", "r with error", "modes apart, points",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


_PLAIN = (("plain_accuracy", 1.0, 2), ("plain_flops", 1e-6, 1))
_DEPTH = (("ponder_ratio", 3), ("loss_correlation", 3), ("error_correlation", 3), ("mode_gap", 2))


def saving(records: Sequence[Record], *, prefix: str, tuned: str, name: str) -> str:
    """Formats FLOPs and accuracy of a method beside the plain network, in one line.

    Networks that start from trained weights come first; without them it is the cheapest run from
    scratch. Runs of another row, such as another tau, do not count.

    Args:
        records: records of any experiments, including those of plain networks.
        prefix: prefix of the ids of the method from scratch.
        tuned: id of the method from trained weights.
        name: name of the method and what it saves, in Markdown.
    """
    everything = group_records(records)
    for group in everything:
        first = group.records[0]
        if first.experiment == tuned and first.preset != "smoke" and not group.row_changes:
            return f"- {name} {_tuned_saving(group)}\n"
    plain = _plain(everything)
    pairs = [
        (group, plain[_length(group)])
        for group in everything
        if group.records[0].experiment.startswith(prefix)
        and _length(group) in plain
        and group.values("flops")
        and not group.row_changes
    ]
    if not pairs:
        return f"- {name} Not run.\n"
    group, beside = min(pairs, key=lambda pair: mean_and_deviation(pair[0].values("flops"))[0])
    first = group.records[0]
    return (
        f"- {name} `{first.config['model']['name']}` spends {_share(group, beside)} of the plain "
        f"network's FLOPs and classifies {text_of(group, 'test_accuracy', 1)} % of the test images "
        f"correctly, the plain one {text_of(beside, 'test_accuracy', 1)} % (both after "
        f"{first.steps:,} steps of {first.config['data']['batch_size']} images, a short training)."
        "\n"
    )


def _tuned_saving(group: Group) -> str:
    first = group.records[0]
    ends = [f".tau{tau:g}" for tau in first.config["halting"]["taus"]]
    shares, accuracies = (
        ", ".join(text_of(group, f"{measure}{end}", 1) for end in ends)
        for measure in ("flops_share", "test_accuracy")
    )
    return (
        f"A trained `{first.config['model']['name']}` classifies "
        f"{text_of(group, 'plain_accuracy', 1)} % of the test images correctly; "
        f"{first.steps:,} steps of tuning later, for each of {len(ends)} values of tau, it spends "
        f"{shares} % of its FLOPs and classifies {accuracies} % correctly."
    )


def _plain(groups: Sequence[Group]) -> dict[tuple, Group]:
    """Returns the groups of whole plain networks by the key of comparable runs."""
    baselines = [
        g
        for g in groups
        if ".baseline." in g.records[0].experiment and "baseline" not in g.records[0].config
    ]
    return {_length(g): g for g in baselines if not g.row_changes}


def _length(group: Group) -> tuple:
    """Returns the key of comparable runs: depth, steps, batch size and data set."""
    first = group.records[0]
    found = re.match(r"resnet(?:v2_)?(\d+)", first.config.get("model", {}).get("name", ""))
    depth, size = found and found[1], first.config["data"]["batch_size"]
    return depth, first.steps, size, first.dataset["fingerprint"]


def _share(group: Group, beside: Group | None) -> str:
    if beside is None:
        return "–"
    flops, whole = (mean_and_deviation(g.values("flops"))[0] for g in (group, beside))
    return f"{100 * flops / whole:.1f} %"


def text_of(group: Group, name: str, least: int = 0, scale: float = 1.0, digits: int | None = None):
    """Formats the mean of a measure over the seeds of a group; a dash if there is none.

    Args:
        group: records of one configuration.
        name: name of the measure.
        least: number of decimals if `digits` is None.
        scale: factor applied to the mean.
        digits: number of decimals.
    """
    values = group.values(name)
    if not values:
        return "–"
    mean = scale * mean_and_deviation(values)[0]
    return f"{mean:,.{least if digits is None else digits}f}"
