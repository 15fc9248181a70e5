"""Multiply-accumulates that a perforated network executes, including downstream savings.

A pointwise layer that reads a compact map, such as a 1x1 convolution, also computes fewer
positions. The paper's whole-network factors include these savings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.analysis import count_macs
from adaptive_nets.perforation.interpreter import EquationObserver, Interpreter, trace
from adaptive_nets.perforation.network import perforate_by_plan
from adaptive_nets.perforation.plan import PerforationPlan
from kernels.perforated_conv import CompactTensor


class ExecutedMacs:
    """Counter for one network at one image size: plan -> multiply-accumulates of one image.

    Every tap of every computed position counts, as in `adaptive_nets.analysis.count_macs`. For an
    empty plan both counts agree.

    Args:
        model: network to count.
        variables: variables of the network or their shapes.
        image_shape: (H, W, C).
    """

    def __init__(self, model: nn.Module, variables: Any, image_shape: tuple[int, int, int]):
        self.whole = count_macs(model, input_shape=image_shape)
        self._model = model
        self._variables = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables
        )
        self._shape = image_shape
        image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        self._traced = trace(model, self._variables, image, train=False)

    def __call__(self, plan: PerforationPlan) -> int:
        """Counts the multiply-accumulates of one image without running the network.

        Raises:
            UserError: the plan does not fit the network.
        """
        perforated = perforate_by_plan(self._model, self._variables, plan, image_shape=self._shape)
        if not perforated.masks:
            return self.whole
        ledger = _Saved()
        interpreter = Interpreter(self._traced, perforated.masks, watcher=ledger)
        jax.eval_shape(interpreter.run, list(self._traced.arguments))
        return self.whole - ledger.macs


class _Saved(EquationObserver):
    """Observer that sums the multiply-accumulates that convolutions skip."""

    def __init__(self) -> None:
        self.macs = 0

    def convolution(
        self, name: str, equation: Any, operands: Sequence[Any], output: Any, reason: str
    ) -> None:
        """Adds the skipped multiply-accumulates of one convolution."""
        if isinstance(output, CompactTensor):
            kernel = equation.invars[1].aval.shape
            spec = equation.params["dimension_numbers"].rhs_spec
            _, high, wide, outputs = output.shape
            skipped = high * wide - output.values.shape[1]
            self.macs += skipped * outputs * (math.prod(kernel) // kernel[spec[0]])
