"""Where the batches of training come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Array

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.training.state import TrainState

TrainSteps = Callable[[TrainState, DeviceSplit, Array, int], TrainState]


class Feed(Protocol):
    """Takes steps, each with its own batch; which batch that is depends on seed and step alone.

    Attributes:
        longest_group: how many steps may be asked for at once.
    """

    longest_group: int

    def prepare(self, step: int) -> None:
        """Sees to it that the batch of a step is at hand.

        Raises:
            UserError: it cannot be read; the state can still be saved.
        """
        ...

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """The state after `count` more steps; the one given is donated.

        Args:
            state: after `step` steps.
            step: steps taken so far.
            count: how many to take, all in one epoch.
        """
        ...

    def measures(self) -> dict[str, float]:
        """Values to log about the input since they were last asked for."""
        ...

    def close(self) -> None:
        """Ends what runs in the background."""
        ...


class ResidentFeed:
    """The whole set lies on the devices, and a step takes its batch there.

    Args:
        data: the training set, on every device.
        train_steps: (state, training set, order, n) -> state after n steps; the state is donated.
        order_of: epoch -> order of its examples.
        steps_per_epoch: of the run.
    """

    longest_group = 1 << 30

    def __init__(
        self,
        data: DeviceSplit,
        train_steps: TrainSteps,
        order_of: Callable[..., Array],
        *,
        steps_per_epoch: int,
    ):
        self._data = data
        self._train_steps = train_steps
        self.order_of = order_of
        self._steps_per_epoch = steps_per_epoch
        self._epoch: int | None = None
        self._order: Array | None = None

    def prepare(self, step: int) -> None:
        """Nothing: everything is there."""

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See `Feed`."""
        epoch = step // self._steps_per_epoch
        if epoch != self._epoch or self._order is None:
            self._epoch = epoch
            self._order = self.order_of(np.int32(epoch))
        return self._train_steps(state, self._data, self._order, count)

    def measures(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def close(self) -> None:
        """Nothing."""
