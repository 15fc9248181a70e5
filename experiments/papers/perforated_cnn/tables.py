"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from experiments.suite import render
from experiments.suite.groups import group_records
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import select

_BATCH = re.compile(r"speedup_batch(\d+)")
HEADER = (
    "network", "preset", "batch", "whole, ms per image", "fewer MACs, x", "speed-up, x",
    "speed-up / fewer MACs", "less memory, x",
)  # fmt: skip


def speed_table(records: Sequence[Record]) -> str:
    """Renders speed-up, MACs and memory, one line per network and batch size.

    Args:
        records: Records of any experiments.
    """
    rows = []
    for experiment in (*select("perforated_cnn.table3"), *select("perforated_cnn.resnet.resnet32")):
        for group in group_records([r for r in records if r.experiment == experiment.id]):
            if group.preset == "smoke":
                continue
            first = group.records[0]
            batches = sorted(int(m[1]) for name in first.metrics if (m := _BATCH.fullmatch(name)))
            for batch in batches:

                def value(name: str, digits: int, first: Record = first) -> str:
                    metric = first.metric(name)
                    return render.number(None if metric is None else metric.value, digits)

                rows.append(
                    (
                        experiment.title + group.row_text,
                        group.preset,
                        str(batch),
                        value(f"milliseconds_batch{batch}", 1),
                        value("macs_reduction", 2),
                        value(f"speedup_batch{batch}", 2),
                        value(f"efficiency_batch{batch}", 2),
                        value("memory_reduction", 2),
                    )
                )
    if not rows:
        return "Not run: there is no record.\n"
    return render.markdown_table(HEADER, rows, tuple(range(2, len(HEADER))))


def masks_table(records: Sequence[Record]) -> str:
    """Renders the increase of the test error of one layer of ResNet-32 by kind of mask and rate."""
    rows, rates = [], np.zeros(0)
    for group in group_records(records):
        first = group.records[0]
        if not first.experiment.startswith("perforated_cnn.resnet.layer-"):
            continue
        arrays = first.arrays()
        if group.preset == "smoke" or (rates.size and arrays["rate"].shape != rates.shape):
            continue
        rates = np.array(first.config["layer"]["rates"])
        cells = [
            f"{mean:+.2f} ± {deviation:.2f}"
            for mean, deviation in zip(
                arrays["error_increase"], arrays["error_deviation"], strict=True
            )
        ]
        draws = str(int(arrays["draws"]))
        rows.append((first.config["layer"]["kind"] + group.row_text, group.preset, draws, *cells))
    if not rows:
        return "Not run: there is no record.\n"
    header = ("mask", "preset", "masks", *(f"rate {rate:.3g}" for rate in rates))
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def residual_table(records: Sequence[Record]) -> str:
    """Renders errors of perforated residual networks, before and after fine-tuning."""
    names = (
        "macs_reduction", "error", "perforated_error", "reestimated_error", "tuned_error",
        "control_error", "speedup", "efficiency",
    )  # fmt: skip
    rows = []
    for group in group_records(records):
        first = group.records[0]
        if first.experiment.startswith("perforated_cnn.resnet.resnet") and group.preset != "smoke":
            values = [group.values(name) for name in names]
            cells = [f"{mean_and_deviation(v)[0]:.2f}" if v else "–" for v in values]
            rows.append((f"`{first.experiment}`", group.describe(), *cells))
    if not rows:
        return "Not run: there is no record.\n"
    header = (
        "experiment", "runs", "fewer MACs, x", "error, %", "perforated, %", "statistics again, %",
        "tuned, %", "whole, tuned as long, %", "speed-up, x", "speed-up / fewer MACs",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(2, len(header))))


def saving(records: Sequence[Record]) -> str:
    """Returns one line: reduced multiplications and time of VGG-16, and errors of NIN."""
    name = "- **PerforatedCNNs** compute some positions of a convolution and copy the others."
    rows = {}
    for row in ("vgg16-cpu-3x", "nin-cpu-2x"):
        chosen = [r for r in records if r.experiment == f"perforated_cnn.table3.{row}"]
        groups = [
            group
            for group in group_records(chosen)
            if group.preset != "smoke" and not group.row_changes
        ]
        if not groups:
            return f"{name} Not run.\n"
        rows[row] = groups[0].records[0]
    vgg, nin = rows.values()

    def value(record: Record, measure: str) -> float:
        metric = record.metric(measure)
        return float("nan") if metric is None or metric.value is None else metric.value

    return (
        f"{name} VGG-16 with {value(vgg, 'macs_reduction'):.1f}x fewer multiplications is "
        f"{value(vgg, 'speedup_batch16'):.1f}x faster at batch 16; its errors are not measured, "
        "since they need ImageNet. NIN, after a short training on CIFAR-10, is "
        f"{value(nin, 'speedup'):.1f}x faster at a test error of {value(nin, 'tuned_error'):.1f} % "
        f"instead of {value(nin, 'error'):.1f} %.\n"
    )


PARTS = {
    "speed": speed_table,
    "saving": saving,
    "residual": residual_table,
    "masks": masks_table,
}
