"""Feeds: the source of training batches, and the training steps that consume them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Array

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.training.state import TrainState

TrainSteps = Callable[[TrainState, DeviceSplit, Array, int], TrainState]
"""(state, training set, order of the epoch, n) -> state after n steps; the state is donated."""


class Feed(Protocol):
    """Source of batches that advances the state; a batch depends on seed and step alone.

    Attributes:
        longest_group: largest number of steps in one call of `advance`.
    """

    longest_group: int

    def prepare(self, step: int) -> None:
        """Loads the batch of a step.

        Raises:
            UserError: the batch cannot be read; the state is still valid and can be saved.
        """
        ...

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """Takes `count` steps and returns the new state; the old one is donated.

        Args:
            state: state after `step` steps.
            step: number of steps taken so far.
            count: number of steps to take, all within one epoch.
        """
        ...

    def measures(self) -> dict[str, float]:
        """Returns input metrics to log, over the time since the previous call."""
        ...

    def close(self) -> None:
        """Stops background work."""
        ...


class ResidentFeed:
    """Feed of a training set that resides on the devices, where each step takes its batch.

    Args:
        data: training set, a copy on every device.
        train_steps: compiled steps.
        order_of: epoch -> order of its examples.
        steps_per_epoch: steps in one pass over the training set.
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
        """Does nothing: all batches are on the devices."""

    def advance(self, state: TrainState, step: int, count: int) -> TrainState:
        """See `Feed`."""
        epoch = step // self._steps_per_epoch
        if epoch != self._epoch or self._order is None:
            self._epoch = epoch
            self._order = self.order_of(np.int32(epoch))
        return self._train_steps(state, self._data, self._order, count)

    def measures(self) -> dict[str, float]:
        """Returns no metrics: nothing is read."""
        return {}

    def close(self) -> None:
        """Does nothing: there is no background work."""
