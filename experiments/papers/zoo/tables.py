"""Tables of the comparisons, rendered from records for documents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from experiments.papers.zoo.comparisons import (
    COMPARISONS,
    Block,
    Comparison,
    answer_of,
    blocks_of,
)
from experiments.shared.paired import Difference
from experiments.suite import render
from experiments.suite.records import Record, mean_and_deviation

NOT_RUN = "Not run: there is no record.\n"


def comparison_part(comparison: Comparison, records: Sequence[Record]) -> str:
    """Renders a comparison: the paper's numbers beside ours, and whether its orderings show."""
    blocks = blocks_of(comparison, records)
    if not blocks:
        return NOT_RUN
    note = f"\n{comparison.note}\n" if comparison.note else ""
    return _table(comparison, blocks) + note + "\n" + ordering_lines(blocks)


def orderings(records: Sequence[Record]) -> str:
    """Renders one list: every comparison with records, its largest runs, and the answers."""
    lines = []
    for comparison in COMPARISONS:
        blocks = blocks_of(comparison, records)
        if blocks:
            lines.append(f"- **{comparison.title}.** " + " ".join(_claims(blocks[0])) + "\n")
    return "".join(lines) or NOT_RUN


def ordering_lines(blocks: Sequence[Block]) -> str:
    """Renders a line for each size of runs: the claimed orderings and whether they show."""
    return "".join(f"- {_size(block)}: {' '.join(_claims(block))}\n" for block in blocks)


def _claims(block: Block) -> list[str]:
    """Returns a sentence for each claimed ordering."""
    comparison, said = block.comparison, []
    for better, worse in comparison.claims:
        names = f"{comparison.sides[better].label} below {comparison.sides[worse].label}"
        difference = block.difference(better, worse)
        if difference is None:
            said.append(f"{names}: not run with equal seeds.")
        else:
            text = _difference(difference, comparison)
            said.append(f"{names}: {text} {comparison.unit}, {_answer(difference)}.")
    return said


def _answer(difference: Difference) -> str:
    if difference.error is None:
        return "of one seed, so the ordering is not decided"
    return f"{difference.count} seeds: the ordering {answer_of(difference)}"


def _difference(difference: Difference, comparison: Comparison) -> str:
    text = f"{difference.mean:+.{comparison.digits}f}"
    if difference.error is None:
        return text
    return f"{text} ± {difference.error:.{comparison.digits}f}"


def _size(block: Block) -> str:
    first = next(group for group in block.groups if group is not None)
    status = "reduced" if first.is_reduced else "full size"
    return f"Preset {block.preset} ({status}, {first.records[0].steps:,} steps)"


def _table(comparison: Comparison, blocks: Sequence[Block]) -> str:
    rows = []
    for block in blocks:
        for number, (side, group) in enumerate(zip(comparison.sides, block.groups, strict=True)):
            paper = comparison.published(number)
            cells = [side.label, "", render.number(paper, comparison.digits), "–", "", "not run"]
            if group is not None:
                mean, deviation = mean_and_deviation(group.values(comparison.measure))
                ours = render.number(mean, comparison.digits)
                if len(group.records) > 1:
                    ours += f" ± {deviation:.{comparison.digits}f}"
                status = "reduced" if group.is_reduced else "full size"
                cells = [side.label, group.describe(), cells[2], ours, "", status]
                difference = block.difference(number, 0) if number else None
                if difference is not None:
                    cells[4] = _difference(difference, comparison)
            rows.append(cells)
    title = "test error, %" if comparison.measure == "error" else "bits per character"
    header = (
        "side", "runs", f"{title}: paper", "ours", "less the first side, same seeds", "runs are",
    )  # fmt: skip
    return render.markdown_table(header, rows, (2, 3, 4))


def columns_table(records: Sequence[Record]) -> str:
    """Renders the test error of every column of FractalNet alone and of the whole network."""
    rows, most = [], 0
    for comparison in COMPARISONS:
        if not comparison.name.startswith("fractalnet"):
            continue
        for block in blocks_of(comparison, records):
            for side, group in zip(comparison.sides, block.groups, strict=True):
                if group is None:
                    continue
                names = sorted(n for n in group.records[0].metrics if n.startswith("error.column"))
                most = max(most, len(names))
                cells = [_error(group.values(name)) for name in (*names, "error")]
                rows.append([side.label, group.describe(), *cells])
    if not rows:
        return NOT_RUN
    columns = [f"column {number} alone, {2**number} deep" for number in range(most)]
    header = ("regularisation", "runs", *columns, "whole network")
    padded = [[*row[:-1], *[""] * (len(header) - len(row)), row[-1]] for row in rows]
    return render.markdown_table(header, padded, tuple(range(2, len(header))))


def _error(values: Sequence[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.2f}" + (f" ± {deviation:.2f}" if len(values) > 1 else "")


PARTS: dict[str, Callable[[Sequence[Record]], str]] = {
    "orderings": orderings,
    "columns": columns_table,
    **{f"comparison-{c.name}": functools.partial(comparison_part, c) for c in COMPARISONS},
}
