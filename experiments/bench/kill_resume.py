"""Checks that training killed repeatedly ends in the state of an undisturbed run."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data import Dataset, load
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.suite.execution import truncated_dataset

FINAL = "final.npz"
_TEMPORARY = "*.orbax-checkpoint-tmp"

# With a checkpoint every second step, the run spends about half of its time on saving.
CONFIG = TrainConfig(
    data=DataConfig(batch_size=100, eval_batch_size=1000, pixel_scale=256.0, centre="pixel"),
    model=ModelConfig(name="lenet_300_100"),
    schedule=ScheduleConfig(length="60 steps"),
    run=RunConfig(
        log_every="1 steps", eval_every="20 steps", checkpoint_every="2 steps", tensorboard=False
    ),
)


@dataclasses.dataclass(frozen=True)
class Kill:
    """One process killed with SIGKILL.

    Attributes:
        run: Index of its run; when a run finishes, the next one starts.
        aimed: "moment" (a random time after its start) or "save" (within 30 ms after the folder of
            a checkpoint appeared).
        after: Lifetime of the process, seconds.
        step: Step of the newest complete checkpoint, -1 for none.
        in_save: Whether it left an incomplete checkpoint.
    """

    run: int
    aimed: str
    after: float
    step: int
    in_save: bool


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Result of the comparison.

    Attributes:
        kills: All kills.
        runs: Number of runs completed under kills.
        different: Number of runs whose final state is not bitwise equal to the undisturbed run's.
        steps: Steps of a run.
    """

    kills: tuple[Kill, ...]
    runs: int
    different: int
    steps: int


def _train(dataset: Dataset, directory: Path, cache: Path) -> None:
    """Trains in this forked process and writes the final state to a file."""
    import jax

    from adaptive_nets.models import create_model
    from adaptive_nets.training.classification import classification_task
    from adaptive_nets.training.loop import train

    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    model = create_model(CONFIG.model.name, num_classes=dataset.num_classes)
    task = classification_task(model)
    result = train(task, CONFIG, dataset=dataset, directory=directory, seed=0)
    import io

    buffer = io.BytesIO()
    arrays = {str(i): np.asarray(x) for i, x in enumerate(jax.tree.leaves(result.state))}
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes_atomically(directory / FINAL, buffer.getvalue())


def _start(dataset: Dataset, directory: Path, cache: Path) -> Any:
    def body() -> None:
        log = os.open(directory / "log.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _train(dataset, directory, cache)

    directory.mkdir(parents=True, exist_ok=True)
    # A fork is a process of its own, which can be killed, and need not import anything again.
    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    return process


def _finish(process: Any, directory: Path) -> None:
    process.join()
    if process.exitcode != 0:
        log = (directory / "log.txt").read_text(errors="replace").strip().splitlines()
        raise UserError(
            f"training in {directory} ended with code {process.exitcode} instead of resuming; "
            f"log.txt there ends with: {log[-1] if log else 'nothing'}"
        )


def _whole_steps(directory: Path) -> list[int]:
    return [int(p.name) for p in (directory / "checkpoints").glob("*") if p.name.isdigit()]


def _kill(process: Any, directory: Path, run: int, aimed: str, life: float) -> Kill | None:
    """Kills the process at a random moment; returns None if it ended before."""
    began = time.monotonic()
    if aimed == "moment":
        process.join(random.uniform(0.0, life))
    else:
        # At one of the first four saves of this process.
        seen, wanted = set(), random.randint(1, 4)
        while process.is_alive() and len(seen) < wanted:
            with contextlib.suppress(OSError):
                seen |= {p.name for p in (directory / "checkpoints").glob(_TEMPORARY)}
            time.sleep(0.001)
        time.sleep(random.uniform(0.0, 0.03))
    if not process.is_alive():
        return None
    process.kill()
    process.join()
    half = any((directory / "checkpoints").glob(_TEMPORARY))
    step = max(_whole_steps(directory), default=-1)
    return Kill(run, aimed, round(time.monotonic() - began, 2), step, half)


def compare(
    directory: Path, *, kills: int, seed: int = 0, report: Callable[[int, Kill], None]
) -> Verdict:
    """Trains once undisturbed, then under kills until their number is reached.

    Args:
        directory: Empty folder to work in.
        kills: Number of kills.
        seed: Seed of the times of the kills.
        report: Called after each kill, with the number of kills so far.

    Raises:
        UserError: A run did not resume after a kill.
    """
    random.seed(seed)
    # A small data set, since every process copies it to its device.
    dataset = truncated_dataset(load("mnist", source="embedded"), train=4000, test=1000)
    cache = directory / "compiled"
    whole = directory / "undisturbed"
    process = _start(dataset, whole, cache)
    _finish(process, whole)
    began = time.monotonic()
    again = directory / "again"
    _finish(_start(dataset, again, cache), again)
    life = time.monotonic() - began  # Duration of a run with a warm compilation cache.
    expected = (whole / FINAL).read_bytes()
    found: list[Kill] = []
    runs = different = 0
    while len(found) < kills:
        here = directory / f"run{runs}"
        while not (here / FINAL).exists():
            process = _start(dataset, here, cache)
            if len(found) < kills:
                aimed = ("moment", "save")[len(found) % 2]
                kill = _kill(process, here, runs, aimed, 0.7 * life)
                if kill is not None:
                    found.append(kill)
                    report(len(found), kill)
                    continue
            _finish(process, here)
        different += (here / FINAL).read_bytes() != expected
        runs += 1
    return Verdict(tuple(found), runs, different, max(_whole_steps(whole)))
