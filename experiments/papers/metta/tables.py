"""Tables of the paper, rendered from records for documents."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.suite import render
from experiments.suite.groups import Group, group_records
from experiments.suite.records import Record, mean_and_deviation

PROBED = "metta.cifar100.resnet32"
_NONE = "Not run: there is no record.\n"
_COMBINATIONS = ("plain.plain", "mean.plain", "plain.mean", "mean.mean")
_VIEWS = (
    "accuracy", "nll", "calibrated_nll", "augmented_accuracy", "augmented_calibrated_nll",
    "matched_accuracy", "matched_calibrated_nll", "knn_accuracy",
)  # fmt: skip
# (classifier, compared with, metric) of every gain.
_GAINS = (
    ("probe of plain embeddings", "itself on images", "gain"),
    ("probe of single views", "itself on images", "augmented_gain"),
    ("probe of single views", "probe of plain embeddings on images", "augmented_total_gain"),
    ("probe of mean embeddings", "itself on images", "matched_gain"),
    ("probe of mean embeddings", "probe of plain embeddings on images", "matched_total_gain"),
    ("neighbours, plain database", "themselves on images", "knn_gain"),
)


def views_table(records: Sequence[Record]) -> str:
    """Renders accuracy and NLL over the number of views, one line per number."""
    rows = []
    for group in _groups(records):
        counts = group.records[0].config["views"]["counts"]
        for name in ("plain", *map(str, counts)):
            label = "image itself" if name == "plain" else name
            cells = [_cell(group, f"{measure}.{name}") for measure in _VIEWS]
            rows.append((group.describe() if name == "plain" else "", label, *cells))
    header = (
        "runs", "views", "probe of plain embeddings: accuracy, %", "NLL, nats",
        "NLL calibrated, nats", "probe of single views: accuracy, %", "NLL calibrated, nats",
        "probe of mean embeddings: accuracy, %", "NLL calibrated, nats",
        "neighbours: accuracy, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(1, len(header)))) if rows else _NONE


def neighbours_table(records: Sequence[Record]) -> str:
    """Renders neighbours and retrieval for plain and mean queries and databases."""
    rows = []
    for group in _groups(records):
        for i, name in enumerate(_COMBINATIONS):
            query, database = name.split(".")
            cells = [
                _cell(group, f"{measure}.{name}")
                for measure in ("knn_accuracy", "recall_at_1", "mean_average_precision")
            ]
            views = str(group.records[0].config["embedding"]["views"])
            rows.append((group.describe() if i == 0 else "", query, database, views, *cells))
    header = (
        "runs", "query", "database", "views of a mean", "neighbours: accuracy, %",
        "recall at 1, %", "mean average precision, %",
    )  # fmt: skip
    return render.markdown_table(header, rows, tuple(range(3, len(header)))) if rows else _NONE


def control_table(records: Sequence[Record]) -> str:
    """Renders mean embeddings beside averages of logits and of probabilities over the views."""
    rows = []
    for group in _groups(records):
        views = group.records[0].config["embedding"]["views"]
        first = True
        for probe, beginning in (("plain embeddings", ""), ("single views", "augmented_")):
            for label, prefix in (("embeddings, or logits", ""), ("probabilities", "probability_")):
                cells = [
                    _cell(group, f"{beginning}{prefix}{measure}.{views}")
                    for measure in ("accuracy", "nll", "calibrated_nll")
                ]
                name = f"{beginning}logit_difference"
                cells.append("–" if prefix else _cell(group, name, digits=1, power=True))
                row = (group.describe() if first else "", probe, str(views), label, *cells)
                rows.append(row)
                first = False
    header = (
        "runs", "probe of", "views", "mean of", "accuracy, %", "NLL, nats", "NLL calibrated, nats",
        "logits apart, relative",
    )  # fmt: skip
    return render.markdown_table(header, rows, (2, 4, 5, 6, 7)) if rows else _NONE


def gain_table(records: Sequence[Record]) -> str:
    """Renders the gain over the image itself, with its deviation, and whether it exceeds two."""
    rows = []
    for group in _groups(records):
        views = group.records[0].config["embedding"]["views"]
        first = True
        for label, beside, name in _GAINS:
            values, errors = group.values(name), group.values(f"{name}_error")
            if not values:
                continue
            mean, over_seeds = mean_and_deviation(values)
            over_images = mean_and_deviation(errors)[0] if errors else math.nan
            # With one seed only the test images tell chance from effect.
            known = [over_images, *([over_seeds] if len(values) > 1 else [])]
            answer = "yes" if mean > 2 * max(known) else "no"
            rows.append(
                (
                    group.describe() if first else "", label, beside, str(views), f"{mean:+.2f}",
                    f"{over_seeds:.2f}" if len(values) > 1 else "–", f"{over_images:.2f}", answer,
                )
            )  # fmt: skip
            first = False
    header = (
        "runs", "classifier", "compared with", "views", "gain, points", "deviation over seeds",
        "standard error over images", "above two deviations",
    )  # fmt: skip
    return render.markdown_table(header, rows, (3, 4, 5, 6)) if rows else _NONE


def _groups(records: Sequence[Record]) -> list[Group]:
    chosen = [r for r in records if r.experiment == PROBED and r.preset != "smoke"]
    return [group for group in group_records(chosen) if not group.row_changes]


def _cell(group: Group, name: str, *, digits: int = 0, power: bool = False) -> str:
    """Formats the mean of a measure, with its deviation over several seeds."""
    values = group.values(name)
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    if power:
        return f"{mean:.{digits}e}"
    digits = digits or (4 if "nll" in name else 2)
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if len(values) > 1 else "")


PARTS = {
    "views": views_table,
    "gain": gain_table,
    "neighbours": neighbours_table,
    "control": control_table,
}
