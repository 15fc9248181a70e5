"""Training loop: set up, restore, train, evaluate, save.

`train` serves every experiment; an experiment supplies its `Task`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted, InterruptGuard
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress
from adaptive_nets.runtime.pytrees import parameter_table
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.checkpoint import Checkpoints
from adaptive_nets.training.config import RunConfig, TrainConfig
from adaptive_nets.training.distributed import (
    broadcast_path_from_process_0,
    is_process_0,
    local_copy,
    max_over_processes,
)
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.evaluation import Evaluate
from adaptive_nets.training.further_writers import open_further_writers
from adaptive_nets.training.profiler import Profiler
from adaptive_nets.training.setup import set_up
from adaptive_nets.training.state import HEALTHY, TrainState, is_healthy
from adaptive_nets.training.task import Task
from adaptive_nets.training.writers import JsonLinesWriter, TensorBoardWriter, Writer, Writers

METRICS_FILE = "metrics.jsonl"

# Target duration of a group of steps: long enough to hide the dispatch overhead, short enough for
# ^C and the progress bar to respond.
DISPATCH_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Result of a finished run.

    With several processes, each has a copy of everything on one of its own devices, so computing
    with it needs no collectives.

    Attributes:
        state: last state.
        timing: lengths of the run in steps.
        train: training set, a `DeviceSplit` or a streamed split.
        test: test set, a `DeviceSplit` or a streamed split.
        evaluate: compiled evaluation, (variables, split) -> values.
        metrics_file: JSON lines of all logged metrics.
        seconds: training time, summed over resumptions.
        resumed_from: step that this call resumed from; 0 for a new run.
    """

    state: TrainState
    timing: Timing
    train: Any
    test: Any
    evaluate: Evaluate
    metrics_file: Path
    seconds: float
    resumed_from: int


def _open_writers(
    directory: Path, config: RunConfig, *, resume_step: int, snapshot: Any
) -> Iterator[Writer]:
    if not is_process_0():
        return
    yield JsonLinesWriter(directory / METRICS_FILE, resume_step=resume_step, snapshot=snapshot)
    if config.tensorboard:
        yield TensorBoardWriter(directory / "tensorboard", resume_step=resume_step)
    yield from open_further_writers(directory, resume_step=resume_step)


def next_dispatch_size(count: int, seconds: float) -> int:
    """Returns the number of steps to dispatch together after `count` of them took `seconds`."""
    wanted = round(count * DISPATCH_SECONDS / max(seconds, 1e-6))
    return max(1, min(wanted, 4 * count))


def train(
    task: Task,
    config: TrainConfig,
    *,
    dataset: Dataset,
    directory: str | Path,
    seed: int,
    progress: ProgressReporter | None = None,
    title: str = "training",
) -> TrainResult:
    """Trains a network; resumes from the newest checkpoint in the folder if there is one.

    Args:
        task: network, objective, evaluation, batches and logged values.
        config: configuration of the run.
        dataset: training and test set, in host memory or on disk.
        directory: folder of the run, for checkpoints/, metrics.jsonl, tensorboard/ and profile/.
            With several processes, all of them write checkpoints to the folder of process 0.
        seed: seed of initialisation, order of the data, augmentation and noise.
        progress: reporter of progress; None shows nothing.
        title: title of the progress bar.

    Raises:
        UserError: sizes do not fit, the loss is not finite, the disk is full, or the checkpoints
            are of another network.
        Interrupted: SIGTERM or ^C was received; the state is saved.
    """
    directory = Path(directory)
    if progress is None or not is_process_0():
        progress = SilentProgress()
    setup = set_up(task, config, dataset, seed=seed)
    timing = setup.timing

    # -- state: restored from a checkpoint, or initialised with its shardings
    checkpoints = Checkpoints(
        broadcast_path_from_process_0(directory) / "checkpoints", keep=config.run.keep_checkpoints
    )
    restored = checkpoints.restore(setup.abstract_state)
    if restored is None:
        state = setup.create_state()
        seconds_before = 0.0
        progress.show(parameter_table(state.params, title=f"{title}: parameters"))
    else:
        state = restored.state
        seconds_before = restored.position["seconds"]
        for line in restored.damaged:
            progress.show(f"warning: {line}; using step {restored.step}")
        if restored.step < timing.total_steps:
            progress.show(f"{title}: resuming from step {restored.step} of {timing.total_steps}")
    first_step = step = int(state.step)

    log_every = timing.interval(config.run.log_every)
    eval_every = timing.interval(config.run.eval_every)
    checkpoint_every = timing.interval(config.run.checkpoint_every)
    profile_first, profile_count = config.run.profile
    began = time.monotonic()

    def boundaries(step: int) -> list[int]:
        """Returns the next step of each kind at which the host has work to do."""
        every = (timing.steps_per_epoch, log_every, eval_every, checkpoint_every)
        once = (timing.total_steps, profile_first, profile_first + profile_count)
        return [(step // n + 1) * n for n in every] + [at for at in once if at > step]

    def stop_if_failed() -> None:
        failed = int(state.failed_step)
        if failed != HEALTHY:
            fail(failed)

    def fail(at: int) -> NoReturn:
        checkpoints.wait()
        raise UserError(
            f"the loss or its gradient is not finite at step {at} "
            f"(learning rate {setup.learning_rate(at):.4g}); "
            f"the state of step {checkpoints.steps()[-1]} is kept in {checkpoints.directory}; "
            "try a smaller --optimiser.learning-rate with another --out"
        )

    def save() -> None:
        stop_if_failed()
        if not is_healthy(state):
            # The loss of the last step was finite, but its gradient was not.
            fail(step - 1)
        epoch, within = divmod(step, timing.steps_per_epoch)
        position = {
            "epoch": epoch,
            "offset": within * timing.batch_size,
            "seed": seed,
            "seconds": seconds_before + time.monotonic() - began,
            "metrics": writers.snapshot(),
        }
        checkpoints.save(step, state, position)

    def stop_if_asked() -> int:
        """Agrees on the size of the next group; saves and raises if any process has to stop."""
        read_error = None
        try:
            setup.feed.prepare(step)
        except UserError as error:
            read_error = error
        wanted = (group, guard.received or 0, int(read_error is not None))
        length, received, failed = max_over_processes(wanted)
        if received or failed:
            save()
            checkpoints.wait()
        if failed:
            raise read_error or UserError(
                "another process could not read its part of the data, see its output for the file; "
                f"step {step} is saved; repair the file and run the same command to resume"
            )
        if received:
            raise Interrupted(signal.Signals(received), step)
        return length

    # -- the loop
    shown: dict[str, float] = {}
    group = 1
    last_log_time, last_log_step = time.monotonic(), step
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(checkpoints.close)
        cleanup.callback(setup.feed.close)
        snapshot = restored.position.get("metrics") if restored else None
        writers = Writers(
            *_open_writers(directory, config.run, resume_step=step, snapshot=snapshot)
        )
        cleanup.callback(writers.close)
        if writers.damage:
            progress.show(f"warning: {directory / METRICS_FILE} {writers.damage}")
        profiler = cleanup.enter_context(Profiler(directory / "profile"))
        progress.start(title, done=step, total=timing.total_steps)
        cleanup.callback(progress.finish)
        guard = cleanup.enter_context(InterruptGuard())

        if restored is None:
            # A disk that cannot be written fails now, not after the first interval.
            save()
        while step < timing.total_steps:
            group = stop_if_asked()
            if profile_count and step == profile_first and is_process_0():
                profiler.start(state)

            count = min(
                group, setup.feed.longest_group, *(until - step for until in boundaries(step))
            )
            dispatched = time.monotonic()
            state = setup.feed.advance(state, step, count)
            step += count
            state.failed_step.block_until_ready()
            now = time.monotonic()
            group = next_dispatch_size(count, now - dispatched)
            progress.update(step, shown)

            last = step == timing.total_steps
            if profiler.running and step == profile_first + profile_count:
                profiler.stop(state)
                progress.show(f"{title}: profile written to {directory / 'profile'}")
            if step % log_every == 0 or last:
                stop_if_failed()
                values = metrics_lib.compute(state.metrics)
                state = dataclasses.replace(state, metrics=setup.fresh_metrics(state.metrics))
                rate = (step - last_log_step) / max(now - last_log_time, 1e-9)
                last_log_time, last_log_step = now, step
                shown |= {"loss": values["loss"]}
                writers.write(
                    step,
                    {
                        "epoch": step / timing.steps_per_epoch,
                        **{f"train/{name}": value for name, value in values.items()},
                        "learning_rate": setup.learning_rate(step - 1),
                        "steps_per_second": rate,
                        **setup.feed.measures(),
                    },
                )
            if step % eval_every == 0 or last:
                stop_if_failed()
                variables = state.eval_variables
                result = setup.evaluate(variables, setup.test)
                del result["count"]
                shown |= task.shown(result)
                writers.write(
                    step,
                    {
                        "epoch": step / timing.steps_per_epoch,
                        **{f"test/{name}": value for name, value in result.items()},
                        **task.describe(local_copy(variables["params"])),
                        **task.assess(local_copy(variables), local_copy(setup.test)),
                    },
                )
            if step % checkpoint_every == 0 or last:
                save()
        checkpoints.wait()
        seconds = seconds_before + time.monotonic() - began
    return TrainResult(
        state=local_copy(state),
        timing=timing,
        train=local_copy(setup.train),
        test=local_copy(setup.test),
        evaluate=setup.evaluate_alone,
        metrics_file=directory / METRICS_FILE,
        seconds=seconds,
        resumed_from=first_step,
    )
