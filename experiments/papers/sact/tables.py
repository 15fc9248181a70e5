"""Tables of networks of adaptive depth, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.comparison import Group, group_records
from experiments.suite.records import Record, mean_and_deviation

PREFIXES = ("sact.", "pact.table1.")


def cost_table(records: Sequence[Record]) -> str:
    """Accuracy and cost of every published run, beside the plain network of the same length."""
    groups = [g for g in group_records(records) if g.records[0].experiment.startswith(PREFIXES)]
    plain = {_length(g): g for g in groups if ".baseline." in g.records[0].experiment}
    rows = []
    for group in groups:
        beside = plain.get(_length(group))
        halting = group.records[0].config.get("halting")
        rows.append(
            (
                f"`{group.records[0].experiment}`",
                group.describe(),
                f"{halting['tau']:g}" if halting else "–",
                _text(group, "test_accuracy", 2),
                f"{_text(group, 'flops', 0, 1e-6, 2)} ± {_text(group, 'flops_std', 0, 1e-6, 2)}",
                _share(group, beside),
                " / ".join(
                    _text(group, f"units.block{i}", 0, 1.0, 2)
                    for i in range(1, 4)
                    if group.values(f"units.block{i}")
                )
                or "all",
                _text(group, "dead_units", 0, 1.0, 0),
                _text(group, "mode_gap", 2),
            )
        )
    header = (
        "experiment", "runs", "τ", "test accuracy, %", "MFLOPs per image", "of the plain network",
        "units per block", "dead units", "modes apart, points",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, 9)))


def ponder_table(records: Sequence[Record]) -> str:
    """Where networks spend their units: the central half of the images against the other half."""
    rows = []
    for group in group_records(records):
        values = [group.values(f"ponder_{name}") for name in ("centre", "border", "centre_more")]
        if not all(values) or not group.records[0].experiment.startswith(PREFIXES):
            continue
        centre, border, more = (mean_and_deviation(v)[0] for v in values)
        first = group.records[0]
        rows.append(
            (
                f"`{first.experiment}`", f"{first.config['halting']['tau']:g}",
                f"{centre:.3f}", f"{border:.3f}", f"{centre / border:.3f}", f"{more:.1f}",
            )
        )  # fmt: skip
    header = (
        "experiment", "τ", "central half, units", "the other half, units", "ratio",
        "images with more in the centre, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, (1, 2, 3, 4, 5))


def estimator_table(records: Sequence[Record]) -> str:
    """Relaxation and REINFORCE over the number of latent variables."""
    rows = []
    for group in group_records(records):
        if group.records[0].experiment.startswith("pact.figure."):
            rows.append(
                (
                    f"`{group.records[0].experiment}`",
                    group.describe(),
                    _text(group, "latents", 0, 1.0, 0),
                    _text(group, "nll.discrete", 0, 1.0, 3),
                    _text(group, "test_accuracy", 2),
                )
            )
    rows.sort(key=lambda row: (float(row[2].replace(",", "")), row[0]))
    header = ("experiment", "runs", "latent variables", "test nats, sampled", "test accuracy, %")
    return render.markdown_table(header, rows, (2, 3, 4))


def parity_table(records: Sequence[Record]) -> str:
    """Updates per time step by how many numbers it holds."""
    rows, most = [], 0
    for group in group_records(records):
        if group.records[0].experiment.startswith("pact.recurrent."):
            units = []
            while values := group.values(f"units.numbers{len(units) + 1}"):
                units.append(f"{mean_and_deviation(values)[0]:.2f}")
            most = max(most, len(units))
            rows.append(
                (
                    f"`{group.records[0].experiment}`",
                    _text(group, "test_accuracy", 1),
                    *units,
                    _text(group, "difficulty_correlation", 0, 1.0, 2),
                )
            )
    header = ("experiment", "sequences right, %", *(str(k) for k in range(1, most + 1)),
              "correlation")  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(1, len(header))))


def _length(group: Group) -> tuple:
    """Depth of the network, data and length of the training."""
    first = group.records[0]
    depth = "110" if "110" in first.experiment else "32"
    return depth, first.steps, first.config["data"]["batch_size"], first.dataset["fingerprint"]


def _share(group: Group, beside: Group | None) -> str:
    if beside is None:
        return "–"
    flops, whole = (mean_and_deviation(g.values("flops"))[0] for g in (group, beside))
    return f"{100 * flops / whole:.1f} %"


def _text(group: Group, name: str, least: int = 0, scale: float = 1.0, digits: int | None = None):
    values = group.values(name)
    if not values:
        return "–"
    mean = scale * mean_and_deviation(values)[0]
    return f"{mean:,.{least if digits is None else digits}f}"
