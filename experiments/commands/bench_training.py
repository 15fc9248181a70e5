"""adaptive-nets bench training: training steps of networks beside PyTorch or bare JAX."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.ranges import Count, EvalBatch, Seconds
from experiments.commands.layout import Column, grouped, rounded
from experiments.commands.output import is_stdout, note, show_listing, write_measured
from experiments.commands.parsing import parse

PROGRAM = "adaptive-nets bench training"
EXAMPLES = (
    "adaptive-nets bench training --networks resnet32_cifar10 nin_cifar10 --batch-size 128",
    "adaptive-nets bench training --networks vgg_cifar10:width=0.25 --torch-python PYTHON",
)
STEPS = (
    Column("network"),
    Column("contender", rank=3),
    Column("batch", rank=5, align="right"),
    Column("seconds_per_step", "step, ms", rank=1, align="right", text=rounded(1, 1e3)),
    Column("examples_per_second", "examples/s", rank=4, align="right", text=rounded(0)),
    Column("ratio", "ours / this", rank=2, align="right", text=rounded(2)),
)


@dataclasses.dataclass(frozen=True)
class Training:
    """Times training steps: of networks of the zoo, or of LeNet-300-100 beside bare JAX.

    A step of --networks is that of 'run': batch, forward and backward pass, SGD with momentum.
    """

    networks: tuple[str, ...] = ()
    """Networks to time, as NAME or NAME:OPTION=VALUE,...; LeNet-300-100 beside bare JAX if none."""
    batch_size: EvalBatch = 128
    """Examples per step, over all devices."""
    torch_python: Path | None = None
    """Interpreter with PyTorch, whose step is then timed too, in turns with ours."""
    seconds: Seconds = 30.0
    """Approximate time of the rounds of one network, in seconds; at least five rounds are taken."""
    rounds: Count = 60
    """Timings of each contender beside bare JAX, in turns."""
    steps: Count = 20
    """Steps per timing beside bare JAX."""
    collectives: bool = False
    """Instead of timing, list the collectives of a step, and the least bytes they must carry."""
    network: Annotated[str, tyro.conf.arg(metavar="NAME")] = "lenet_300_100"
    """Network whose collectives are listed."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """Mesh of devices."""
    json: Path | None = None
    """File for the measured values; - prints them."""


def main(arguments: Sequence[str]) -> None:
    """Times training steps."""
    options = parse(Training, arguments, program=PROGRAM, examples=EXAMPLES)
    if options.collectives:
        list_collectives(options)
    elif options.networks:
        time_networks(options)
    else:
        beside_bare_jax(options)


def parse_network(text: str) -> tuple[str, dict[str, Any]]:
    """Returns name and options of NAME or NAME:OPTION=VALUE,...

    Raises:
        UserError: no such network, or an option is not OPTION=VALUE.
    """
    from adaptive_nets.models import model_entry

    name, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not (key and equals):
            raise UserError(f"--networks {text}: {part!r} is not an option; expected OPTION=VALUE")
        try:
            options[key] = json.loads(value)
        except json.JSONDecodeError:
            options[key] = value
    return model_entry(name).name, options


def time_networks(options: Training) -> None:
    """Times steps of networks of the zoo, in turns with PyTorch's."""
    from adaptive_nets import create_model
    from adaptive_nets.training.batch_size import require_divisible_batch
    from adaptive_nets.training.mesh import DATA, make_mesh
    from experiments.bench.torch_peer import TorchPeer
    from experiments.bench.training_steps import time_steps

    devices = make_mesh(options.mesh).shape[DATA]
    require_divisible_batch(options.batch_size, devices, flag="--batch-size")
    networks = [parse_network(text) for text in options.networks]
    for name, given in networks:
        create_model(name, **given)
    values: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        peer = None
        if options.torch_python is not None:
            peer = stack.enter_context(TorchPeer(options.torch_python))
        try:
            for number, (name, given) in enumerate(networks, 1):
                label = options.networks[number - 1]
                if peer is not None and name not in peer.networks:
                    note(f"{label}: there is no form in PyTorch; only ours is timed")
                note(f"{number} of {len(networks)}: compiling {label}, batch {options.batch_size}")
                found = time_steps(
                    name, given, label=label, batch_size=options.batch_size,
                    mesh=options.mesh, seconds=options.seconds, peer=peer,
                )  # fmt: skip
                values += [dataclasses.asdict(timed) for timed in found]
                note(f"{label}: " + "; ".join(f"{t.contender} {t.text}" for t in found))
        except KeyboardInterrupt:
            note("interrupted; the listing has the networks above")
    if not is_stdout(options.json):
        text = "medians over rounds taken in turns; ratios are medians of those within a round"
        show_listing(STEPS, values, notes=(text,))
    packages = {} if peer is None else {"torch": peer.version}
    write_measured(options.json, "training steps", values, **packages)


def beside_bare_jax(options: Training) -> None:
    """Times steps of LeNet-300-100 in turns with the same network in bare JAX."""
    from experiments.bench import training

    values = []
    for case in training.CASES:
        comparison = training.compare(case, rounds=options.rounds, steps=options.steps)
        for name in comparison.rates:
            rate, ratio = comparison.median(name), comparison.ratio(name)
            values.append({"case": case, "contender": name, "steps_per_second": round(rate, 1),
                           "ratio": round(ratio, 4), "rounds": options.rounds,
                           "steps": options.steps})  # fmt: skip
    if not is_stdout(options.json):
        columns = (
            Column("case", "network"),
            Column("contender"),
            Column("steps_per_second", "steps/s", align="right", text=rounded(0)),
            Column("ratio", "ours / this", align="right", text=rounded(3)),
        )
        text = "medians over rounds taken in turns; ratios are medians of the ratios within a round"
        show_listing(columns, values, notes=(text,))
    write_measured(options.json, "training", values)


def list_collectives(options: Training) -> None:
    """Prints the collectives of a compiled step beside the least communication it needs."""
    from adaptive_nets.training.config import DataConfig, ModelConfig, TrainConfig
    from adaptive_nets.training.mesh import make_mesh
    from experiments.bench import collectives

    mesh = make_mesh(options.mesh)
    if mesh.size == 1:
        raise UserError(
            "there is one device, so a step has no collectives; expected several devices: on a "
            "CPU, set XLA_FLAGS=--xla_force_host_platform_device_count=4"
        )
    size = options.batch_size
    config = TrainConfig(
        data=DataConfig(batch_size=size, eval_batch_size=size),
        model=ModelConfig(name=options.network),
        mesh=options.mesh,
    )
    found = collectives.report(config, mesh)
    if not is_stdout(options.json):
        columns = (
            Column("kind", "collective"),
            Column("bytes", align="right", text=grouped),
            Column("arrays", rank=2, align="right"),
            Column("source", "for", rank=1, least=8),
        )
        show_listing(columns, [dataclasses.asdict(each) for each in found.collectives])
    note(f"mesh {found.mesh}, parameters {found.parameters:,} bytes, divided {found.divided:,}")
    for kind in collectives.KINDS:
        total = found.total(kind)
        if found.minimum is None:
            if total:
                note(f"{kind}: {total:,} bytes")
        elif total or found.minimum.get(kind):
            least = found.minimum.get(kind, 0)
            note(f"{kind}: {total:,} bytes, at least {least:,}, {total - least:+,}")
    values = {"network": options.network, "batch": size, **dataclasses.asdict(found)}
    write_measured(options.json, "collectives", values)
