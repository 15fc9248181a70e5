"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.papers.sparse_vd.configs.parameterisation import AT_EPOCHS, EPOCHS, FORMS
from experiments.papers.sparse_vd.recorded_noise import (
    PANELS,
    SHOWN,
    layers_of,
    variance_ratio,
)
from experiments.suite import render
from experiments.suite.comparison import compare
from experiments.suite.experiment import Experiment
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import select


def summary_table(records: Sequence[Record]) -> str:
    """Renders error, compression and file size of Table 1, one line per group of records."""
    rows = []
    for experiment in select("sparse_vd.table1"):
        chosen = [record for record in records if record.experiment == experiment.id]
        (cells,) = compare([experiment], chosen).values()
        ours = [c for c in cells if c.group is not None and c.verdict != "other row"]
        for block in render.blocks(ours):
            group = block[0].group
            assert group is not None
            found = {cell.measure.name: cell for cell in block}
            file_size = group.values("file_size")
            rows.append(
                (
                    experiment.title,
                    group.describe(),
                    *(
                        text(found[name])
                        for name in ("error", "compression")
                        for text in (render.paper_text, render.ours_text)
                    ),
                    f"{mean_and_deviation(file_size)[0] / 1000:,.1f}" if file_size else "–",
                    found["error"].verdict,
                )
            )
    header = (
        "network", "runs", "test error, %: paper", "ours", "compression, x: paper", "ours",
        "our file, kB", "status of the error",
    )  # fmt: skip
    return render.markdown_table(header, rows, (2, 3, 4, 5, 6))


def saving(records: Sequence[Record]) -> str:
    """Returns one line: weights and bytes saved on LeNet-300-100."""
    name = "- **Sparse variational dropout** removes weights."
    prefix = "sparse_vd.table1.lenet-300-100-"
    sparse, dense = (
        next(iter(group_records([r for r in records if r.experiment == prefix + row])), None)
        for row in ("sparse", "original")
    )
    if sparse is None or dense is None:
        return f"{name} Not run.\n"

    def mean(group: Group, measure: str) -> float:
        return mean_and_deviation(group.values(measure))[0]

    return (
        f"{name} LeNet-300-100 on MNIST keeps 1 weight in {mean(sparse, 'compression'):.0f} at "
        f"{mean(sparse, 'error'):.2f} % test error (dense: {mean(dense, 'error'):.2f} %). Its file "
        f"is {mean(sparse, 'file_size') / 1e3:,.0f} kB instead of "
        f"{mean(dense, 'file_size') / 1e3:,.0f} kB. By itself it saves no time: the "
        "pruned network runs densely. Dense layers that skip removed weights are a function of "
        "the library, `sparse_apply`.\n"
    )


def forms_table(records: Sequence[Record]) -> str:
    """Renders sparsity and error of the multiplicative and the additive form, of each network."""
    rows = []
    for experiment in select("sparse_vd.parameterisation"):
        chosen = [record for record in records if record.experiment == experiment.id]
        for group in group_records(chosen):
            if group.row_changes:
                continue
            values = {
                name: mean_and_deviation(found)[0] if (found := group.values(name)) else None
                for name in ("error", "compression", "sparsity", *AT_EPOCHS)
            }
            rows.append(
                (
                    experiment.title, group.describe(), render.number(values["error"], 2),
                    render.number(values["compression"], 0),
                    *(render.number(values[name], 1) for name in (*AT_EPOCHS, "sparsity")),
                )
            )  # fmt: skip
    if not rows:
        return "Not run.\n"
    header = (
        "network", "runs", "test error, %", "compression, x",
        *(f"sparsity after epoch {epoch}, %" for epoch in EPOCHS), "at the end, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(2, 5 + len(EPOCHS)))


def gradient_noise(records: Sequence[Record]) -> str:
    """Renders the gradient noise of both forms: pictures, a sentence per network, and a table."""
    found = [
        (experiment, group)
        for experiment in select("sparse_vd.parameterisation")
        for group in group_records([r for r in records if r.experiment == experiment.id])
        if group.preset != "smoke" and not group.row_changes and layers_of(group)
    ]
    if not found:
        return "Not measured.\n"
    pictures = [f"![{what}](../../results/figures/{name})\n" for name, what in PANELS.items()]
    shown = any(experiment.id.startswith(SHOWN) for experiment, _ in found)
    sentences = [f"- {text}\n" for pair in found if (text := _noise_sentence(*pair))]
    table = _noise_table(found)
    return "\n".join([*(pictures if shown else ()), "".join(sentences), table])


def _noise_sentence(experiment: Experiment, group: Group) -> str:
    """Compares the variances at the lowest and at the highest log α with enough weights."""
    layer = layers_of(group)[0]
    ratios = {sampled: variance_ratio(group, layer, sampled=sampled) for sampled in (False, True)}
    there = np.isfinite(ratios[False].values) & np.isfinite(ratios[True].values)
    if not np.any(there):
        return ""
    first, last = np.flatnonzero(there)[[0, -1]]
    low, high = (f"log α = {ratios[False].middles[i]:g}" for i in (first, last))
    local, sampled = (
        [_two_digits(float(ratio.values[i])) for i in (first, last)] for ratio in ratios.values()
    )
    return (
        f"{experiment.title}, {layer} of the trained network: the variance of the gradient in the "
        f"multiplicative form over that in the additive form is {local[0]} at {low} and {local[1]} "
        f"at {high} with the noise of training; {sampled[0]} and {sampled[1]} with sampled weights "
        f"({group.describe()})."
    )


def _two_digits(value: float) -> str:
    """Formats a number to two significant digits, without an exponent."""
    value = float(f"{value:.2g}")
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f}"


def _mean(group: Group, measure: str) -> float | None:
    values = group.values(measure)
    return mean_and_deviation(values)[0] if values else None


def _noise_table(found: Sequence[tuple[Experiment, Group]]) -> str:
    rows = []
    for experiment, group in found:
        for layer in layers_of(group):
            variances, ratios, sampled = (
                [_mean(group, f"{name}.{form}.{layer}") for form in reversed(FORMS)]
                for name in ("gradient_variance", "gradient_snr", "sampled_gradient_snr")
            )
            rows.append(
                (
                    experiment.title, layer,
                    *("–" if x is None else f"{x:.2g}" for x in variances),
                    *(render.number(x, 2) for x in (*ratios, *sampled)),
                )
            )  # fmt: skip
    header = (
        "trained network", "layer", "median variance: additive", "multiplicative",
        "signal-to-noise: additive", "multiplicative", "with sampled weights: additive",
        "multiplicative",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(2, 8))


PARTS = {
    "summary": summary_table,
    "saving": saving,
    "forms": forms_table,
    "gradient-noise": gradient_noise,
}
