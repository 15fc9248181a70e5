"""Training as a chain of states: stops at given steps, resumes from a file, one program for all.

The step is that of `training.step`, with any optimiser of optax. Each chain has its own key, which
decides initialisation, order of the data, augmentation and noise.
"""

from __future__ import annotations

import io
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from adaptive_nets.data.device import Augment, DeviceSplit, epoch_order, take_training_batch
from adaptive_nets.ensembling.posterior.langevin import langevin_noise, seed_noise
from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.interrupt import Interrupted, InterruptGuard
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.optimiser import is_kernel
from adaptive_nets.training.state import TrainState, is_healthy
from adaptive_nets.training.step import (
    AUGMENT,
    NOISE,
    SHUFFLE,
    StepSettings,
    init_state,
    make_train_step,
)
from adaptive_nets.training.task import Task

# Seconds between two writes of the state.
_SAVE_EVERY = 30.0


def sgd(
    schedule: Callable[[Any], Any],
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    noise: Mapping[str, Any] | None = None,
) -> optax.GradientTransformation:
    """Builds SGD with momentum and L2 regularisation of kernels, optionally with Langevin noise.

    Args:
        schedule: learning rate by step.
        momentum: momentum.
        weight_decay: factor of the kernels in the gradient.
        noise: options of `langevin_noise` besides schedule and momentum; None for no noise.
    """
    parts = []
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=is_kernel))
    if noise is not None:
        parts.append(langevin_noise(schedule, momentum=momentum, **noise))
    if momentum:
        parts.append(optax.trace(momentum))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule))


class Training:
    """Training of a network by one recipe; its chains share one compiled program.

    Args:
        task: network, objective and start.
        data: training set on the device.
        optimiser: optimiser with its schedule.
        batch_size: examples per step.
        augmentation: random changes to training rows, or None.

    Raises:
        UserError: the batch is larger than the training set.
    """

    def __init__(
        self,
        task: Task,
        data: DeviceSplit,
        optimiser: optax.GradientTransformation,
        *,
        batch_size: int,
        augmentation: Augment | None = None,
    ):
        # The length is that of the caller; the objective needs the number of examples.
        self.timing = Timing.of("1 epochs", batch_size=batch_size, examples=data.size)
        self.data = data
        objective = task.objective(self.timing)
        settings = StepSettings()
        example = task.prepare(
            {
                name: jnp.zeros(
                    (1, *rows.shape[1:]), jnp.float32 if name == "image" else rows.dtype
                )
                for name, rows in data.arrays.items()
            }
        )

        def take(state: TrainState, data: DeviceSplit, order: Any) -> Any:
            rows = take_training_batch(
                data, order, state.step, batch_size=batch_size, key=state.key(AUGMENT),
                augmentation=augmentation or (lambda key, rows: rows),
            )  # fmt: skip
            return task.prepare(rows)

        def create(rng: Any) -> TrainState:
            return init_state(task, objective, optimiser, settings, rng=rng, example=example)

        def order_of(rng: Any, epoch: Any) -> Any:
            key = jax.random.fold_in(jax.random.wrap_key_data(rng), SHUFFLE)
            return epoch_order(key, epoch, data.size)

        self.optimiser = optimiser
        self.create = jax.jit(create)
        self.order_of = jax.jit(order_of)
        self.step = jax.jit(
            make_train_step(task, objective, optimiser, settings, take=take), donate_argnums=0
        )

    def chain(
        self,
        key: PRNGKeyArray,
        *,
        start: Variables | None = None,
        store: Path | None = None,
        progress: ProgressReporter | None = None,
        title: str = "training",
        total: int = 0,
    ) -> Chain:
        """Starts a chain, or resumes it from its file.

        Args:
            key: PRNG key of the chain.
            start: variables to start from; None for initial ones of the key.
            store: file of the state; None keeps none.
            progress: shows the rate and the remaining time.
            title: title of the progress.
            total: last step, for the progress.
        """
        rng = jnp.asarray(jax.random.key_data(key))
        state = self.create(rng)
        if start is not None:
            rest = jax.tree.map(jnp.array, {name: start[name] for name in state.model_state})
            params = jax.tree.map(jnp.array, dict(start["params"]))
            state = state.replace(  # pyright: ignore[reportAttributeAccessIssue]
                params=params, model_state=rest, opt_state=self.optimiser.init(params)
            )
        noise_key = jax.random.fold_in(key, NOISE)
        state = state.replace(opt_state=seed_noise(state.opt_state, noise_key))  # pyright: ignore
        if store is not None and store.exists():
            state = _read(store, state)
        return Chain(self, state, store, progress or SilentProgress(), title, total)


class Chain:
    """State of one training that is advanced from stop to stop.

    Args:
        training: program of the chain.
        state: current state.
        store: file of the state, or None.
        progress: shows the rate and the remaining time.
        title: title of the progress.
        total: last step.
    """

    def __init__(
        self, training: Training, state: TrainState, store: Path | None,
        progress: ProgressReporter, title: str, total: int,
    ):  # fmt: skip
        self._training, self._state, self._store = training, state, store
        self._progress, self._title, self._total = progress, title, total
        self._saved = time.monotonic()

    @property
    def step(self) -> int:
        """Number of completed steps."""
        return int(self._state.step)

    def advance_to(self, step: int) -> Variables:
        """Trains until so many steps are complete, and returns the variables as NumPy arrays.

        Raises:
            UserError: the loss or a parameter is not finite, or the chain is beyond the step.
            Interrupted: SIGTERM or ^C was received; the state is saved.
        """
        done, per_epoch = self.step, self._training.timing.steps_per_epoch
        if done > step:
            raise UserError(
                f"{self._store} holds step {done}; expected at most {step}, the step of the next "
                "member: a file of a member is missing; choose another folder with --out"
            )
        order, epoch = None, -1
        self._progress.start(self._title, done=done, total=max(self._total, step))
        with InterruptGuard() as guard:
            while done < step:
                if done // per_epoch != epoch:
                    epoch = done // per_epoch
                    order = self._training.order_of(self._state.rng, jnp.int32(epoch))
                self._state = self._training.step(self._state, self._training.data, order)
                self._state.failed_step.block_until_ready()
                done += 1
                self._progress.update(done)
                if guard.received is not None:
                    self.save()
                    self._progress.finish()
                    raise Interrupted(guard.received, done)
                if time.monotonic() - self._saved > _SAVE_EVERY:
                    self.save()
        self._check()
        self._progress.finish()
        return jax.device_get(self._state.eval_variables)

    def save(self) -> None:
        """Writes the state to the file of the chain, if it has one."""
        self._check()
        if self._store is not None:
            content = io.BytesIO()
            leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(self._state))
            arrays: dict[str, Any] = {path_name(path): leaf for path, leaf in leaves}
            np.savez(content, **arrays)
            self._store.parent.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(self._store, content.getvalue())
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Removes the file of the chain, once all of its members are kept elsewhere."""
        if self._store is not None:
            self._store.unlink(missing_ok=True)

    def _check(self) -> None:
        if not bool(is_healthy(self._state)):
            failed = int(self._state.failed_step)
            at = failed if failed >= 0 else self.step - 1
            raise UserError(
                f"the loss or its gradient is not finite at step {at} of {self._title}; "
                "try a smaller learning rate with another --out"
            )


def _read(store: Path, state: TrainState) -> TrainState:
    """Reads a state of the same shapes.

    Raises:
        UserError: the file is damaged, or of another network or optimiser.
    """
    try:
        with np.load(store, allow_pickle=False) as content:
            found = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{store} is damaged: {error}; remove it to train again") from error

    def stored(path: Any, leaf: Any) -> Any:
        array = found.get(path_name(path))
        if array is None or array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise UserError(
                f"{store} is the state of another training: {path_name(path)} is "
                f"{'absent' if array is None else f'{array.dtype}{list(array.shape)}'}; expected "
                f"{leaf.dtype}{list(leaf.shape)}; remove it or choose another folder with --out"
            )
        return jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(stored, state)
