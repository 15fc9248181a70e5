"""adaptive-nets bench: time, measured side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from adaptive_nets.errors import UserError
from adaptive_nets.files import write_json_atomically
from adaptive_nets.training.config import require
from experiments import provenance
from experiments.commands.choice import choose
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench"


@dataclasses.dataclass(frozen=True)
class Training:
    """Steps per second of our training beside the same network written directly in JAX."""

    rounds: int = 60
    """How often each is timed, in turns."""
    steps: int = 20
    """Steps per timing."""
    json: Path | None = None
    """File for the measured values."""


@dataclasses.dataclass(frozen=True)
class Networks:
    """Time of a forward pass of networks of the zoo."""

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern of names."""
    batch: tuple[int, ...] = (1, 8, 32)
    """Batch sizes."""
    rounds: int = 20
    """How often each is timed, in turns."""
    json: Path | None = None
    """File for the measured values."""


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Time of our kernels beside the dense convolution."""

    json: Path | None = None
    """File for the measured values."""


def _write(path: Path | None, kind: str, values: Any) -> None:
    if path is not None:
        write_json_atomically(
            path,
            {
                "benchmark": kind,
                "code": provenance.commit(),
                "packages": provenance.package_versions(),
                "devices": provenance.devices(),
                "values": values,
            },
        )
        print(f"written to {path}")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def bench_training(arguments: Sequence[str]) -> None:
    """Times training steps."""
    options = parse(Training, arguments, program=f"{PROGRAM} training")
    require(options.rounds > 0, "rounds", options.rounds, "a positive number")
    require(options.steps > 0, "steps", options.steps, "a positive number")
    from experiments.bench import training

    table = _table("network", "contender", "steps/s", "ours / this")
    values = []
    for case in training.CASES:
        comparison = training.compare(case, rounds=options.rounds, steps=options.steps)
        for name in comparison.rates:
            rate, ratio = comparison.median(name), comparison.ratio(name)
            table.add_row(case, name, f"{rate:.0f}", f"{ratio:.3f}")
            values.append({"case": case, "contender": name, "steps_per_second": round(rate, 1),
                           "ratio": round(ratio, 4), "rounds": options.rounds,
                           "steps": options.steps})  # fmt: skip
    Console().print(table)
    print("medians over rounds taken in turns; ratios are medians of the ratios within a round")
    _write(options.json, "training", values)


def bench_networks(arguments: Sequence[str]) -> None:
    """Times forward passes."""
    options = parse(Networks, arguments, program=f"{PROGRAM} networks")
    for size in options.batch:
        require(size > 0, "batch", size, "positive numbers")
    require(options.rounds > 0, "rounds", options.rounds, "a positive number")
    from adaptive_nets import list_models
    from experiments.bench import networks

    names = list_models(options.pattern)
    if not names:
        raise UserError(f"no model matches {options.pattern!r}; adaptive-nets models lists all")
    table = _table("network", "batch", "compile, s", "forward, ms", "images/s", "GMAC/s")
    values = [
        dataclasses.asdict(networks.time_forward(name, batch=size, rounds=options.rounds))
        for name in names
        for size in options.batch
    ]
    for v in values:
        table.add_row(
            v["name"],
            str(v["batch"]),
            f"{v['compile_seconds']:.2f}",
            f"{1e3 * v['seconds']:.3f}",
            f"{v['batch'] / v['seconds']:.0f}",
            f"{v['batch'] * v['macs'] / v['seconds'] / 1e9:.2f}",
        )
    Console().print(table)
    _write(options.json, "networks", values)


def bench_kernels(arguments: Sequence[str]) -> None:
    """Times kernels."""
    parse(Kernels, arguments, program=f"{PROGRAM} kernels")
    import kernels

    if not kernels.__all__:
        raise UserError("bench kernels: this version has no kernels of its own yet")


def main(arguments: Sequence[str]) -> None:
    """Measures training, networks or kernels."""
    choose(
        PROGRAM,
        arguments,
        {
            "training": (bench_training, "steps per second beside bare JAX"),
            "networks": (bench_networks, "time of forward passes"),
            "kernels": (bench_kernels, "our kernels beside the dense convolution"),
        },
    )
