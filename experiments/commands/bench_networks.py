"""adaptive-nets bench networks: time of forward passes and of the first output."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.progress import Progress

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import Range, Size
from experiments.commands.layout import Column, rounded
from experiments.commands.output import console, is_stdout, show_listing, write_measured
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench networks"
EXAMPLES = (
    "adaptive-nets bench networks lenet_300_100 --batch 1 32",
    "adaptive-nets bench networks 'resnet*cifar10' --rounds 0 --json first.json",
)


@dataclasses.dataclass(frozen=True)
class Networks:
    """Times forward passes of networks of the zoo, and of PyTorch where it can be imported."""

    pattern: tyro.conf.Positional[tuple[str, ...]] = (
        "alexnet", "nin_cifar10", "resnet32_cifar10", "resnet50"
    )  # fmt: skip
    """Shell patterns of names."""
    batch: Annotated[tuple[int, ...], Range(1, 2**16, least=1)] = (1, 8)
    """Batch sizes."""
    rounds: Size = 20
    """Timings of each contender, in turns; 0 for the time until the first output alone."""
    torch_python: Path | None = None
    """Python interpreter with PyTorch; if not given, this one if it has PyTorch."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times forward passes."""
    options = parse(Networks, arguments, program=PROGRAM, examples=EXAMPLES)
    from adaptive_nets import list_models
    from experiments.bench.torch_peer import TorchPeer

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
    if not is_stdout(options.json):
        _show(values)
    write_measured(options.json, "networks", values, **({"torch": peer.version} if peer else {}))


def _time_all(cases: Sequence[tuple[str, int]], rounds: int, peer: Any) -> list[dict[str, Any]]:
    from experiments.bench.networks import time_forward

    values = []
    with Progress(console=console(stderr=True), transient=True, disable=len(cases) < 2) as progress:
        task = progress.add_task("", total=len(cases))
        try:
            for name, size in cases:
                progress.update(task, description=f"{name}, batch {size}")
                found = time_forward(name, batch=size, rounds=rounds, peer=peer)
                values += [dataclasses.asdict(timed) for timed in found]
                first = sum(found[0].first_output.values())
                progress.console.print(f"{name}, batch {size}: first output after {first:.1f} s")
                progress.advance(task)
        except KeyboardInterrupt:
            progress.console.print("interrupted; the listing has the networks above")
    return values


def _show(values: Sequence[dict[str, Any]]) -> None:
    from experiments.bench.networks import STAGES

    columns = (
        Column("name", "network"),
        Column("batch", rank=1, align="right"),
        Column("contender", rank=3),
        Column("seconds", "forward, ms", rank=2, align="right", text=rounded(3, 1e3)),
        Column("ratio", "ours / this", rank=4, align="right", text=rounded(3)),
        Column("images_per_second", "images/s", rank=6, align="right", text=rounded(0)),
        Column("gmacs_per_second", "GMAC/s", rank=7, align="right", text=rounded(2)),
        Column("first_output", "first output, s", rank=5, align="right", text=rounded(2)),
        *(Column(stage, f"{stage}, s", 8, align="right", text=rounded(2)) for stage in STAGES),
    )
    text = "times are medians over rounds taken in turns; ratios are of times within a round"
    show_listing(columns, [_row(value) for value in values], notes=(text,))


def _row(value: dict[str, Any]) -> dict[str, Any]:
    seconds, stages = value["seconds"], value["first_output"]
    return {
        **value,
        "images_per_second": value["batch"] / seconds if seconds else None,
        "gmacs_per_second": value["batch"] * value["macs"] / seconds / 1e9 if seconds else None,
        "first_output": sum(stages.values()) if stages else None,
        **(stages or {}),
    }
