"""adaptive-nets bench networks: forward passes, and the time until the first one."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import Progress

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import require
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench networks"


@dataclasses.dataclass(frozen=True)
class Networks:
    """Time of a forward pass of networks of the zoo, where possible with PyTorch beside it."""

    pattern: tyro.conf.Positional[tuple[str, ...]] = ("*",)
    """Shell patterns of names."""
    batch: tuple[int, ...] = (1, 8, 32)
    """Batch sizes."""
    rounds: int = 20
    """How often each is timed, in turns; 0 for the time until the first output alone."""
    torch_python: Path | None = None
    """Interpreter that can import torch; this one where not given, if it can."""
    json: Path | None = None
    """File for the measured values."""


def main(arguments: Sequence[str]) -> None:
    """Times forward passes."""
    options = parse(Networks, arguments, program=PROGRAM)
    for size in options.batch:
        require(size > 0, "batch", size, "positive numbers")
    require(options.rounds >= 0, "rounds", options.rounds, "a number of at least 0")
    from adaptive_nets import list_models
    from experiments.bench.torch_peer import TorchPeer
    from experiments.commands.output import write

    names = list(dict.fromkeys(name for p in options.pattern for name in list_models(p)))
    if not names:
        raise UserError(
            f"no model matches {' '.join(options.pattern)!r}; adaptive-nets models lists all"
        )
    with contextlib.ExitStack() as stack:
        peer = None
        if options.rounds and (options.torch_python or importlib.util.find_spec("torch")):
            peer = stack.enter_context(TorchPeer(options.torch_python))
        values = _time_all(list(itertools.product(names, options.batch)), options.rounds, peer)
    _show(values, passes=options.rounds > 0)
    write(options.json, "networks", values, **({"torch": peer.version} if peer else {}))


def _time_all(cases: Sequence[tuple[str, int]], rounds: int, peer: Any) -> list[dict[str, Any]]:
    from experiments.bench.networks import time_forward

    values = []
    with Progress(transient=True, disable=len(cases) < 2) as progress:
        task = progress.add_task("", total=len(cases))
        try:
            for name, size in cases:
                progress.update(task, description=f"{name}, batch {size}")
                found = time_forward(name, batch=size, rounds=rounds, peer=peer)
                values += [dataclasses.asdict(timed) for timed in found]
                first = sum(found[0].first_output.values())
                progress.console.print(
                    f"{name}, batch {size}: first output after {first:.1f} s", highlight=False
                )
                progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print("stopped; what follows is of the networks above")
    return values


def _show(values: Sequence[dict[str, Any]], *, passes: bool) -> None:
    from experiments.bench.networks import STAGES
    from experiments.commands.output import table

    console = Console()
    shown = table("network", "batch", *(f"{stage}, s" for stage in STAGES), "first output, s")
    for v in values:
        if v["first_output"]:
            stages = [v["first_output"][stage] for stage in STAGES]
            shown.add_row(
                v["name"], str(v["batch"]), *(f"{s:.2f}" for s in stages), f"{sum(stages):.2f}"
            )
    console.print(shown)
    if not passes:
        return
    shown = table(
        "network", "batch", "contender", "forward, ms", "images/s", "GMAC/s", "ours / this"
    )
    for v in values:
        shown.add_row(
            v["name"],
            str(v["batch"]),
            v["contender"],
            f"{1e3 * v['seconds']:.3f}",
            f"{v['batch'] / v['seconds']:.0f}",
            f"{v['batch'] * v['macs'] / v['seconds'] / 1e9:.2f}",
            f"{v['ratio']:.3f}",
        )
    console.print(shown)
    console.print(
        "times are medians over rounds taken in turns; ratios are of times within a round"
    )
