"""adaptive-nets bench adaptive: time of networks that skip, beside plain networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from adaptive_nets.training.ranges import EvalBatch, InsideUnit, Range, Seconds, Seed
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, note, show_listing, write_measured
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench adaptive"
EXAMPLES = (
    "adaptive-nets bench adaptive resnet32_sact_cifar10 --height 32 --width 32 --batch 128",
    "adaptive-nets bench adaptive resnet50_sact --stop-early 0.5",
)
Shares = Annotated[tuple[float, ...], Range(0, 1, open_low=True, open_high=True, least=1)]
COLUMNS = (
    Column("part"),
    Column("flops_share", "FLOPs", rank=2, align="right", text=rounded(3)),
    Column("time_share", "time", rank=1, align="right", text=rounded(3)),
    Column("excess", "time / FLOPs", rank=3, align="right", text=rounded(3)),
    Column("plain_seconds", "plain, ms", rank=5, align="right", text=rounded(1, 1e3)),
    Column("skipping_seconds", "skipping, ms", rank=4, align="right", text=rounded(1, 1e3)),
    Column("stop_early", "stop early, %", rank=6, align="right", text=rounded(0, 100)),
)


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Times a network of adaptive depth that skips beside the plain one, at shares of its FLOPs."""

    name: tyro.conf.Positional[str] = "resnet101_sact"
    """Network of adaptive depth."""
    height: Annotated[int, Range(1, 2**14)] = 600
    """Height of the images, in pixels; 32 for CIFAR networks."""
    width: Annotated[int, Range(1, 2**14)] = 1000
    """Width of the images, in pixels."""
    batch: EvalBatch = 1
    """Images per pass."""
    flops: Shares = (0.55, 0.65, 0.75, 0.9)
    """FLOPs of each block over those of its plain form, fractions in (0, 1); one row for each."""
    stop_early: InsideUnit | None = None
    """Instead of FLOPs: share of each block's positions that halt before its last unit."""
    blocks: bool = False
    """Time each block on its own too, at the last share."""
    seconds: Seconds = 15.0
    """Approximate time of the rounds of one comparison, in seconds; at least five are taken."""
    seed: Seed = 0
    """Seed of weights and images."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times a network, and its blocks if asked for, skipping beside plain."""
    options = parse(Adaptive, arguments, program=PROGRAM, examples=EXAMPLES)
    from experiments.bench import adaptive_case, adaptive_depth

    adaptive_case.plain_name(options.name)
    note("initialising weights, and compiling")
    chosen = dataclasses.asdict(options)
    settings = adaptive_case.Settings(
        **{f.name: chosen[f.name] for f in dataclasses.fields(adaptive_case.Settings)}
    )
    network = adaptive_case.Network(settings)
    whole = adaptive_depth.WholeNetwork(network)
    targets: list[dict[str, Any]] = [{"flops": share} for share in options.flops]
    if options.stop_early is not None:
        targets = [{"stop_early": options.stop_early}]
    found: list[adaptive_depth.Comparison] = []
    try:
        for number, target in enumerate(targets, 1):
            (what, share), *_ = target.items()
            note(f"{number} of {len(targets)}: biases for {what.replace('_', ' ')} {share:g}")
            case = network.case(**target)
            found.append(whole.compare(case, seconds=options.seconds))
            note(f"time {found[-1].time_share:.3f} at {found[-1].flops_share:.3f} of the FLOPs")
        networks = list(found)
        inputs = network.stage_inputs(case) if options.blocks else []
        for stage, x in enumerate(inputs):
            note(f"block {stage + 1} of {len(inputs)}")
            found.append(
                adaptive_depth.compare_block(network, case, stage, x, seconds=options.seconds)
            )
    except KeyboardInterrupt:
        note("interrupted; the listing has what was measured so far")
        networks = [part for part in found if part.part == "network"]
    rows = [_row(part) for part in found]
    even = adaptive_depth.break_even(networks)
    if not is_stdout(options.json):
        text = "shares are of the plain network; times are medians over rounds taken in turns"
        faster = "never" if even is None else f"up to {100 * even:.0f} % of the plain FLOPs"
        show_listing(COLUMNS, rows, notes=(text, f"skipping is faster: {faster}"))
    values = {
        "settings": dataclasses.asdict(settings),
        "parts": [dataclasses.asdict(part) for part in found],
        "break_even": even,
    }
    write_measured(options.json, "adaptive", values)


def _row(part: Any) -> dict[str, Any]:
    from experiments.bench.adaptive_depth import PLAIN, SKIPPING

    return {
        **dataclasses.asdict(part),
        "plain_seconds": part.seconds[PLAIN],
        "skipping_seconds": part.seconds[SKIPPING],
    }
