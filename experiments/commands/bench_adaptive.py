"""adaptive-nets bench adaptive: time of networks that skip, beside plain networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from adaptive_nets.training.ranges import EvalBatch, InsideUnit, Range, Seconds, Seed
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, note, show_listing, write_measured
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench adaptive"
EXAMPLES = ("adaptive-nets bench adaptive resnet32_sact --height 32 --width 32 --batch 32",)
COLUMNS = (
    Column("part"),
    Column("stop_early", "stop early, %", rank=4, align="right", text=rounded(0, 100)),
    Column("plain_seconds", "plain, ms", rank=2, align="right", text=rounded(1, 1e3)),
    Column("skipping_seconds", "skipping, ms", rank=1, align="right", text=rounded(1, 1e3)),
    Column("time_share", "time", rank=3, align="right", text=rounded(3)),
    Column("flops_share", "FLOPs", rank=5, align="right", text=rounded(3)),
    Column("excess", "time / FLOPs", rank=6, align="right", text=rounded(3)),
)


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Times a network of adaptive depth that skips beside the plain one, with their FLOPs."""

    name: tyro.conf.Positional[str] = "resnet101_sact"
    """Network of adaptive depth."""
    height: Annotated[int, Range(1, 2**14)] = 600
    """Height of the images, in pixels; 32 for CIFAR networks."""
    width: Annotated[int, Range(1, 2**14)] = 1000
    """Width of the images, in pixels."""
    batch: EvalBatch = 1
    """Images per pass."""
    stop_early: InsideUnit = 0.5
    """Share of each block's positions that halt before its last unit, a fraction in (0, 1)."""
    blocks: bool = True
    """Time each block on its own too."""
    seconds: Seconds = 30.0
    """Approximate time of the rounds of one comparison, in seconds."""
    seed: Seed = 0
    """Seed of weights and images."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times a network and its blocks, skipping beside plain."""
    options = parse(Adaptive, arguments, program=PROGRAM, examples=EXAMPLES)
    from experiments.bench import adaptive_depth

    adaptive_depth.plain_name(options.name)
    note("initialising weights, and biases with which positions halt early")
    chosen = dataclasses.asdict(options)
    settings = adaptive_depth.Settings(
        **{f.name: chosen[f.name] for f in dataclasses.fields(adaptive_depth.Settings)}
    )
    case = adaptive_depth.make_case(settings)
    found = [adaptive_depth.compare_network(case)]
    stages = len(case.inputs) if options.blocks else 0
    try:
        for stage in range(stages):
            note(f"block {stage + 1} of {stages}")
            found.append(adaptive_depth.compare_block(case, stage))
    except KeyboardInterrupt:
        note("interrupted; the listing has the parts measured so far")
    rows = [
        {
            "part": part.part,
            "stop_early": part.stop_early,
            "plain_seconds": part.seconds[adaptive_depth.PLAIN],
            "skipping_seconds": part.seconds[adaptive_depth.SKIPPING],
            "time_share": part.time_share,
            "flops_share": part.flops_share,
            "excess": part.excess,
        }
        for part in found
    ]
    if not is_stdout(options.json):
        text = "shares are of the plain network; times are medians over rounds taken in turns"
        show_listing(COLUMNS, rows, notes=(text,))
    values = {
        "settings": dataclasses.asdict(settings),
        "parts": [dataclasses.asdict(part) for part in found],
    }
    write_measured(options.json, "adaptive", values)
