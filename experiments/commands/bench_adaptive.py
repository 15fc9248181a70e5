"""adaptive-nets bench adaptive: time that follows depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro
from rich.console import Console

from adaptive_nets.training.config import require
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench adaptive"


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """Time of a network of adaptive depth that skips, over the plain one's, beside FLOPs."""

    name: tyro.conf.Positional[str] = "resnet101_sact"
    """Network of adaptive depth."""
    height: int = 600
    """Height of the images, in pixels; 32 is that of networks for CIFAR."""
    width: int = 1000
    """Width of the images, in pixels."""
    batch: int = 1
    """Images per pass."""
    stop_early: float = 0.5
    """Share of each block's positions that halt before its last unit, a fraction in (0, 1)."""
    blocks: bool = True
    """Whether to time each block on its own too."""
    seconds: float = 30.0
    """About how long the rounds of one comparison take."""
    seed: int = 0
    """Of weights and images."""
    json: Path | None = None
    """File for the measured values."""


def main(arguments: Sequence[str]) -> None:
    """Times a network and its blocks, skipping beside plain."""
    options = parse(Adaptive, arguments, program=PROGRAM)
    for name in ("height", "width", "batch"):
        require(getattr(options, name) > 0, name, getattr(options, name), "a positive number")
    require(0 < options.stop_early < 1, "stop-early", options.stop_early, "a fraction in (0, 1)")
    require(options.seconds > 0, "seconds", options.seconds, "a positive number")
    from experiments.bench import adaptive_depth
    from experiments.commands.output import table, write

    adaptive_depth.plain_name(options.name)
    print("making weights, and biases by which positions stop early", flush=True)
    chosen = dataclasses.asdict(options)
    settings = adaptive_depth.Settings(
        **{f.name: chosen[f.name] for f in dataclasses.fields(adaptive_depth.Settings)}
    )
    case = adaptive_depth.make_case(settings)
    found = [adaptive_depth.compare_network(case)]
    stages = len(case.inputs) if options.blocks else 0
    try:
        for stage in range(stages):
            print(f"block {stage + 1} of {stages}", flush=True)
            found.append(adaptive_depth.compare_block(case, stage))
    except KeyboardInterrupt:
        print("stopped; what follows was measured before")
    shown = table(
        "part", "stop early", "plain, ms", "skipping, ms", "time", "FLOPs", "time / FLOPs"
    )
    for part in found:
        shown.add_row(
            part.part,
            f"{100 * part.stop_early:.0f} %",
            f"{1e3 * part.seconds[adaptive_depth.PLAIN]:.1f}",
            f"{1e3 * part.seconds[adaptive_depth.SKIPPING]:.1f}",
            f"{part.time_share:.3f}",
            f"{part.flops_share:.3f}",
            f"{part.excess:.3f}",
        )
    Console().print(shown)
    print("shares are of the plain network; times are medians over rounds taken in turns")
    values = {
        "settings": dataclasses.asdict(settings),
        "parts": [dataclasses.asdict(part) for part in found],
    }
    write(options.json, "adaptive", values)
