"""adaptive-nets bench: benchmarks of training, networks and kernels."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import Count, EvalBatch, Range, Seed, Threads, Workers
from experiments.commands import (
    bench_adaptive,
    bench_autotune,
    bench_kernels,
    bench_networks,
    bench_sparse,
    bench_startup,
    bench_training,
)
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, note, show_fields, show_listing, write_measured
from experiments.commands.parsing import parse
from experiments.commands.subcommands import dispatch_subcommand

PROGRAM = "adaptive-nets bench"


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
    "training": bench_training.Training,
    "networks": bench_networks.Networks,
    "adaptive": bench_adaptive.Adaptive,
    "kernels": bench_kernels.Kernels,
    "sparse": bench_sparse.Sparse,
    "startup": bench_startup.Startup,
    "input": Input,
    "kills": Kills,
    "autotune": bench_autotune.Autotune,
}
EXAMPLES = (
    "adaptive-nets bench networks lenet_300_100 --batch 1 32",
    "adaptive-nets bench kernels 'VGG*' --kinds grid --json kernels.json",
    "adaptive-nets bench training --networks resnet32_cifar10 --torch-python PYTHON",
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
            "training": (bench_training.main, "training steps, beside PyTorch or bare JAX"),
            "networks": (bench_networks.main, "time of forward passes"),
            "adaptive": (bench_adaptive.main, "networks of adaptive depth, skipping beside plain"),
            "kernels": (bench_kernels.main, "our kernels beside the dense convolution"),
            "sparse": (bench_sparse.main, "products with pruned matrices beside dense ones"),
            "startup": (bench_startup.main, "imports, listings, first and second start of a run"),
            "input": (bench_input, "examples per second of a set that is read while training"),
            "kills": (bench_kills, "a training killed and resumed, beside one never killed"),
            "autotune": (bench_autotune.main, "tile sizes of the Pallas kernels, by measured time"),
        },
        examples=EXAMPLES,
    )
