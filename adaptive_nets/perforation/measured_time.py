"""Measured time of a perforated network's forward pass on the current device."""

from __future__ import annotations

import time
from typing import Any

import jax
import numpy as np

from adaptive_nets.perforation.network import perforate
from adaptive_nets.perforation.plan import PerforationPlan
from adaptive_nets.runtime.errors import UserError


class MeasuredTime:
    """Cost function that times the compiled forward pass of a plan, after a warm-up.

    Args:
        model: the network.
        variables: its variables.
        images: float[N, H, W, C], batch to time.
        runs: number of passes averaged; five in the paper's code.

    Raises:
        UserError: the number of passes is not positive.
    """

    def __init__(self, model: Any, variables: Any, images: np.ndarray, *, runs: int = 5):
        if runs < 1:
            raise UserError(f"runs is {runs!r}; expected a positive number of forward passes")
        self._model, self._runs = model, runs
        self._variables = jax.device_put(variables)
        self._images = jax.device_put(images)

    def __call__(self, plan: PerforationPlan) -> float:
        """Measures the mean seconds of one pass.

        Raises:
            UserError: the plan is for another network.
        """
        perforated = perforate(self._model, self._variables, plan)
        forward = jax.jit(lambda variables, x: perforated.apply(variables, x, train=False))
        jax.block_until_ready(forward(self._variables, self._images))
        began = time.perf_counter()
        for _ in range(self._runs):
            jax.block_until_ready(forward(self._variables, self._images))
        return (time.perf_counter() - began) / self._runs
