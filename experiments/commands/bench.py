"""adaptive-nets bench: benchmarks of training, networks and kernels."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.ranges import Count, EvalBatch, Range, Seed, Threads, Workers
from experiments.commands import bench_adaptive, bench_autotune, bench_kernels, bench_networks
from experiments.commands.layout import Column, grouped, rounded
from experiments.commands.output import is_stdout, note, show_fields, show_listing, write_measured
from experiments.commands.parsing import parse
from experiments.commands.subcommands import dispatch_subcommand

PROGRAM = "adaptive-nets bench"


@dataclasses.dataclass(frozen=True)
class Training:
    """Steps per second of our training beside the same network written directly in JAX."""

    rounds: Count = 60
    """Timings of each contender, in turns."""
    steps: Count = 20
    """Steps per timing."""
    collectives: bool = False
    """Instead of timing, list the collectives of a step, and the least bytes they must carry."""
    network: str = "lenet_300_100"
    """Network whose collectives are listed."""
    batch_size: EvalBatch = 64
    """Examples per step of that network, over all devices."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    """Mesh of devices for that."""
    json: Path | None = None
    """File for the measured values; - prints them."""


@dataclasses.dataclass(frozen=True)
class Input:
    """Examples per second from records to batches of 224x224, and their share of a training step.

    Reads, decodes, crops and flips the training part of a set as training does. With --copies, a
    few files stand for a large set.
    """

    data: str = "imagenet"
    """Name of the data set, see 'adaptive-nets data list'."""
    batch_size: EvalBatch = 32
    """Examples per batch."""
    epochs: Count = 3
    """Passes over the set; memory is measured after each."""
    copies: Annotated[int, Range(1, 10_000)] = 1
    """Number of times that each file of records is read."""
    workers: Workers = 0
    """Processes that decode; 0 for threads alone."""
    threads: Threads = 16
    """Threads that decode at once, in each of these processes."""
    network: str | None = None
    """Train this network too, to see what reading adds to a step."""
    steps: Count = 5
    """Steps of that training that are timed, with and without reading."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    json: Path | None = None
    """File for the measured values; - prints them."""


@dataclasses.dataclass(frozen=True)
class Kills:
    """Kills a training with SIGKILL at random moments and during saves, and resumes it.

    Exit code 2 if a run does not resume by itself, or ends with other parameters than the run that
    was never killed.
    """

    kills: Count = 50
    """Number of kills."""
    seed: Seed = 0
    """Seed of the random moments."""
    json: Path | None = None
    """File for what was found; - prints it."""


def bench_training(arguments: Sequence[str]) -> None:
    """Times training steps."""
    options = parse(Training, arguments, program=f"{PROGRAM} training")
    if options.collectives:
        list_collectives(options)
        return
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


def bench_input(arguments: Sequence[str]) -> None:
    """Times reading and decoding."""
    options = parse(Input, arguments, program=f"{PROGRAM} input")
    from adaptive_nets.data.streams import StreamOptions
    from experiments.bench import input as bench

    stream = StreamOptions(options.workers, options.threads)
    split = bench.open_split(options.data, options.data_dir, options.copies)
    epochs = bench.read_epochs(
        split, batch_size=options.batch_size, epochs=options.epochs, options=stream
    )
    if not is_stdout(options.json):
        columns = (
            Column("epoch"),
            Column("examples", align="right"),
            Column("examples_per_second", "examples/s", align="right", text=rounded(0)),
            Column("memory_mib", "memory, MiB", align="right", text=rounded(0)),
        )
        rows = [
            {
                "epoch": number,
                "examples": epoch.examples,
                "examples_per_second": epoch.examples / epoch.seconds,
                "memory_mib": epoch.resident_bytes / 2**20,
            }
            for number, epoch in enumerate(epochs, 1)
        ]
        show_listing(columns, rows)
    values: dict[str, Any] = {
        "image_shape": split.image_shape,
        "batch": options.batch_size,
        "copies": options.copies,
        "files": len(split.paths) // options.copies,
        "workers": options.workers,
        "threads": options.threads,
        "epochs": [dataclasses.asdict(epoch) for epoch in epochs],
    }
    if options.network is not None:
        share = bench.share_of_step(
            options.data,
            options.data_dir,
            network=options.network,
            batch_size=options.batch_size,
            steps=options.steps,
            copies=options.copies,
            options=stream,
        )
        note(
            f"{share.network}, batch {share.batch}: a step takes {share.seconds_streamed:.3f} s "
            f"with reading, {share.seconds_resident:.3f} s without; reading adds "
            f"{100 * share.extra:.1f} % of it"
        )
        values["training"] = dataclasses.asdict(share)
    write_measured(options.json, "input", values)


def bench_kills(arguments: Sequence[str]) -> None:
    """Kills and resumes a training, and compares its end with an undisturbed one."""
    options = parse(Kills, arguments, program=f"{PROGRAM} kills")
    from experiments.bench import kill_resume as kills

    def report(number: int, kill: kills.Kill) -> None:
        where = "a half-written checkpoint" if kill.in_save else "no half-written checkpoint"
        note(
            f"{number}/{options.kills}: killed after {kill.after:.1f} s, newest step {kill.step}, "
            f"{where}"
        )

    with tempfile.TemporaryDirectory(prefix="adaptive-nets-kills-") as folder:
        verdict = kills.compare(Path(folder), kills=options.kills, seed=options.seed, report=report)
    half = sum(kill.in_save for kill in verdict.kills)
    if not is_stdout(options.json):
        show_fields(
            {
                "kills": len(verdict.kills),
                "during_a_save": half,
                "runs": verdict.runs,
                "steps": verdict.steps,
                "ended_differently": verdict.different,
            }
        )
    write_measured(options.json, "kills", dataclasses.asdict(verdict))
    if verdict.different:
        raise UserError(
            f"{verdict.different} of {verdict.runs} runs ended with other parameters than the run "
            "that was never killed"
        )


FORMS = {
    "training": Training,
    "networks": bench_networks.Networks,
    "adaptive": bench_adaptive.Adaptive,
    "kernels": bench_kernels.Kernels,
    "input": Input,
    "kills": Kills,
    "autotune": bench_autotune.Autotune,
}
EXAMPLES = (
    "adaptive-nets bench networks lenet_300_100 --batch 1 32",
    "adaptive-nets bench kernels 'VGG*' --kinds grid --json kernels.json",
    "adaptive-nets bench training --json - | jq .values",
)


def with_stdout(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments, with "-" after a --json without a file."""
    made = []
    for i, argument in enumerate(arguments):
        made.append(argument)
        following = arguments[i + 1] if i + 1 < len(arguments) else "--"
        if argument == "--json" and following.startswith("--"):
            made.append("-")
    return made


def main(arguments: Sequence[str]) -> None:
    """Measures training, networks or kernels."""
    dispatch_subcommand(
        PROGRAM,
        with_stdout(arguments),
        {
            "training": (bench_training, "steps per second beside bare JAX"),
            "networks": (bench_networks.main, "time of forward passes"),
            "adaptive": (bench_adaptive.main, "networks of adaptive depth, skipping beside plain"),
            "kernels": (bench_kernels.main, "our kernels beside the dense convolution"),
            "input": (bench_input, "examples per second of a set that is read while training"),
            "kills": (bench_kills, "a training killed and resumed, beside one never killed"),
            "autotune": (bench_autotune.main, "tile sizes of the Pallas kernels, by measured time"),
        },
        examples=EXAMPLES,
    )
