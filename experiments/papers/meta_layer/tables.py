"""Tables of the article and its claims, rendered from records for documents."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

from experiments.papers.meta_layer.configs import VARIANTS
from experiments.shared.comparisons import compared, difference_text, within
from experiments.suite import render
from experiments.suite.comparison import compare_row
from experiments.suite.groups import Group, group_records
from experiments.suite.paper_values import Row
from experiments.suite.records import Record, mean_and_deviation
from experiments.suite.registry import find_experiment, load_paper

PAPER, TESTS = "meta_layer", (1, 2, 3)
CONVOLUTIONS, HEADS = ("conv2d", "conv3d", "meta"), ("conv2d", "head")
# With a capital, as a line of the table; the numbers beside it are the article's.
NOT_RUN = "Not run"
# Largest difference that counts as equal accuracy, points.
_EQUAL = 1.0


def results_table(records: Sequence[Record], *, kinds: Sequence[str]) -> str:
    """Renders size, cost and accuracy of the published networks, one line per group of records.

    Args:
        records: records of any experiments.
        kinds: kinds of networks, the columns of the article's table.
    """
    rows = []
    for test in TESTS:
        for kind in kinds:
            row = _row(f"test{test}.{kind}")
            macs = render.number(_row(f"derived.{row.id}").number("macs"), 0)
            size = render.number(row.number("parameters"), 0)
            name, printed = f"{row.network}, {row.method}", _printed_accuracy(row, kinds)
            groups = _groups(records, f"{PAPER}.{row.id}")
            for group in groups:
                ours = (_count(group, "parameters"), _count(group, "macs"))
                rows.append(
                    (name, size, ours[0], macs, ours[1], printed, _mean(group, "accuracy"),
                     _mean(group, "last_accuracy"), _mean(group, "test_accuracy"),
                     group.describe(), _status(group, records))
                )  # fmt: skip
            if not groups:
                rows.append((name, size, "–", macs, "–", printed, "–", "–", "–", "–", NOT_RUN))
    header = (
        "network", "parameters: article", "ours", "MACs: from the notebook", "ours",
        "accuracy, %: article", "ours, best epoch", "last epoch", "last epoch, mean over images",
        "runs", "status of the accuracy",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(1, 9))


def variants_table(records: Sequence[Record]) -> str:
    """Renders the variants: size, cost, accuracy, and differences from published networks."""
    rows = []
    for variant in VARIANTS:
        row = _row(variant.row)
        name = f"{row.network}, {row.method}"
        reference = _row(variant.reference.removeprefix(f"{PAPER}."))
        baseline = f"{PAPER}.test{variant.test}.conv2d"
        groups = _groups(records, variant.id)
        for group in groups:
            # A group is compared with published networks that were run like it.
            own = [r for r in records if r.experiment != variant.id] + list(group.records)
            found = [
                compared(own, variant.id, i, "accuracy") for i in (baseline, variant.reference)
            ]
            rows.append(
                (name, _count(group, "parameters"), _count(group, "macs"),
                 _mean(group, "accuracy"), _mean(group, "last_accuracy"),
                 *(difference_text(pair[0]) if pair else "–" for pair in found),
                 reference.method, group.describe())
            )  # fmt: skip
        if not groups:
            size = render.number(row.number("parameters"), 0)
            macs = render.number(row.number("macs"), 0)
            rows.append((name, size, macs, "–", "–", "–", "–", reference.method, NOT_RUN))
    header = (
        "network", "parameters", "MACs", "accuracy, %: best epoch", "last epoch",
        "best epoch less Conv2d, points", "less the published network, points",
        "published network", "runs",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(1, 7))


def claims_table(records: Sequence[Record]) -> str:
    """Renders every claim: what the article prints, what seeds show, and the verdict."""
    lines = [
        *_accuracy_claim(records, "claims.convolution", ("conv3d", "meta"), (-5.0, -1.0)),
        *_computation_claim(),
        *_accuracy_claim(records, "claims.head", ("head",), (0.0, math.inf)),
        *_efficiency_claim(records),
    ]
    rows = []
    for i, line in enumerate(lines):
        first = i == 0 or lines[i - 1][0] != line[0]
        rows.append((line[0] if first else "", *line[1:]))
    header = (
        "claim", "network", "article: parameters", "article: accuracy, points",
        "ours: best epoch, points", "last epoch, points", "runs", "verdict",
    )  # fmt: skip
    return render.markdown_table(header, rows, range(2, 6))


def _accuracy_claim(
    records: Sequence[Record], claim: str, kinds: Sequence[str], bounds: tuple[float, float]
) -> list[tuple[str, ...]]:
    """Returns lines of a claim on the difference from the Conv2d network of the same test."""
    lines = []
    for test in TESTS:
        for kind in kinds:
            row, derived = _row(f"test{test}.{kind}"), _row(f"derived.test{test}.{kind}")
            printed = (
                f"{derived.number('parameters_change'):+.1f} %",
                f"{derived.number('accuracy_change'):+.2f}",
            )
            ids = f"{PAPER}.{row.id}", f"{PAPER}.test{test}.conv2d"
            ours = _fair(records, *ids, bounds)
            lines.append((_words(claim), f"{row.network}, {row.method}", *printed, *ours))
    return lines


def _computation_claim() -> list[tuple[str, ...]]:
    """Returns lines of the claim on computation, which needs no training."""
    lines = []
    for kind in ("conv3d", "meta"):
        row, derived = _row(f"test3.{kind}"), _row(f"derived.test3.{kind}")
        size, cost = (derived.number(name) for name in ("parameters_change", "macs_change"))
        lines.append(
            (_words("claims.computation"), f"{row.network}, {row.method}", f"{size:+.1f} %",
             "none", "none", "none", "counted, without runs",
             f"MACs change by {cost:+.1f} %: less than the parameters")
        )  # fmt: skip
    return lines


def _efficiency_claim(records: Sequence[Record]) -> list[tuple[str, ...]]:
    """Returns lines of the claim of equal accuracy with a fifth of the parameters."""
    small, lines = _row("test2.head"), []
    for kind in ("head", "conv2d"):
        large = _row(f"test3.{kind}")
        ratio = _row(f"derived.efficiency.{kind}").number("ratio")
        change = (small.number("accuracy") or 0.0) - (large.number("accuracy") or 0.0)
        ours = _fair(records, f"{PAPER}.{small.id}", f"{PAPER}.{large.id}", (-_EQUAL, _EQUAL))
        name = f"{small.network}, {small.method}, less {large.network}, {large.method}"
        lines.append(
            (_words("claims.efficiency"), name, f"by a factor of {ratio:.2f}", f"{change:+.2f}",
             *ours)
        )  # fmt: skip
    return lines


def _fair(
    records: Sequence[Record], first: str, second: str, bounds: tuple[float, float]
) -> tuple[str, str, str, str]:
    """Returns the differences at best and last epoch, the runs, and the verdict."""
    best, last = (compared(records, first, second, m) for m in ("accuracy", "last_accuracy"))
    if best is None or best[1].preset == "smoke":
        return "–", "–", "–", NOT_RUN
    difference, group = best
    verdict = within(difference, *bounds)
    runs = group.describe() + (" (reduced)" if group.is_reduced else "")
    return (
        difference_text(difference), difference_text(last[0]) if last else "–",
        f"{runs}, {difference.count} in both", verdict,
    )  # fmt: skip


def picture_part(records: Sequence[Record]) -> str:
    """Returns the picture of accuracy over size and cost once there are records of the tests."""
    ids = [f"{PAPER}.test{test}.{kind}" for test in TESTS for kind in (*CONVOLUTIONS, "head")]
    if not any(_groups(records, name) for name in ids):
        return f"{NOT_RUN}: there is no record.\n"
    return "![Accuracy over parameters](../../results/figures/meta-layer-accuracy.svg)\n"


def _row(name: str) -> Row:
    return load_paper(PAPER).rows[name]


def _words(claim: str) -> str:
    return str(_row(claim).values["claim"])


def _printed_accuracy(row: Row, kinds: Sequence[str]) -> str:
    """Returns the article's accuracy; its tables disagree about one network."""
    text = render.number(row.number("accuracy"), 2)
    other = load_paper(PAPER).rows.get(f"first-table.{row.id}")
    if other is None or "head" in kinds:
        return text
    return f"{render.number(other.number('accuracy'), 2)} ({text} in the notebook)"


def _groups(records: Sequence[Record], experiment: str) -> list[Group]:
    groups = group_records([r for r in records if r.experiment == experiment])
    return [group for group in groups if not group.row_changes and group.preset != "smoke"]


def _count(group: Group, name: str) -> str:
    values = set(group.values(name))
    return " / ".join(render.number(value, 0) for value in sorted(values)) or "–"


def _mean(group: Group, name: str) -> str:
    """Formats mean and deviation over seeds, %."""
    values = group.values(name)
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f}" + (f" ± {deviation:.2f}" if len(values) > 1 else "")


def _status(group: Group, records: Sequence[Record]) -> str:
    """Returns the verdict on the accuracy of a group."""
    experiment = find_experiment(group.records[0].experiment)
    cells = compare_row(load_paper(PAPER), _row(experiment.row), experiment, records)
    own = [c for c in cells if c.group is not None and c.group.records == group.records]
    return next(render.verdict_text(cell) for cell in own if cell.measure.name == "accuracy")


PARTS = {
    "convolutions": functools.partial(results_table, kinds=CONVOLUTIONS),
    "heads": functools.partial(results_table, kinds=HEADS),
    "claims": claims_table,
    "variants": variants_table,
    "picture": picture_part,
}
