"""adaptive-nets bench sparse: products with pruned matrices beside the dense product."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from adaptive_nets.training.ranges import Count, Range
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, note, show_listing, write_measured
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench sparse"
EXAMPLES = ("adaptive-nets bench sparse --sparsities 0.9 0.99 --batches 1 100",)
COLUMNS = (
    Column("inputs", align="right"),
    Column("outputs", align="right"),
    Column("sparsity", align="right", text=rounded(3)),
    Column("most", "weights of an output, at most", rank=3, align="right"),
    Column("batch", align="right"),
    Column("contender"),
    Column("seconds", "time, us", rank=2, align="right", text=rounded(0, 1e6)),
    Column("ratio", "faster than dense, x", rank=1, align="right", text=rounded(2)),
)


@dataclasses.dataclass(frozen=True)
class Sparse:
    """Times products of a batch with pruned matrices: dense, and in forms that skip zeros."""

    sparsities: Annotated[tuple[float, ...], Range(0, 1, least=1, open_high=True)] = (
        0.8, 0.9, 0.95, 0.98, 0.99, 0.995,
    )  # fmt: skip
    """Shares of weights that are 0."""
    batches: Annotated[tuple[int, ...], Range(1, 2**16, least=1)] = (1, 100, 1000)
    """Rows of the batch."""
    rounds: Count = 11
    """Timings of each contender, in turns."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times the products."""
    options = parse(Sparse, arguments, program=PROGRAM, examples=EXAMPLES)
    from experiments.bench import sparse

    rows = []
    for found in sparse.time_products(
        sparse.SHAPES, sparsities=options.sparsities, batches=options.batches,
        rounds=options.rounds,
    ):  # fmt: skip
        rows.append(dataclasses.asdict(found))
        if found.contender == sparse.OURS:
            note(
                f"{found.inputs} x {found.outputs}, {100 * found.sparsity:g} % zeros, batch "
                f"{found.batch}: {found.ratio:.2f} times as fast as dense"
            )
    if not is_stdout(options.json):
        show_listing(COLUMNS, rows)
    write_measured(options.json, "sparse", rows)
