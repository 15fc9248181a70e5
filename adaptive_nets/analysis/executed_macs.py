"""Multiply-accumulates that a perforated network carries out, those that follow included.

What reads a compact map position by position, a 1x1 convolution for instance, has fewer positions
to compute as well; the paper's factors of whole networks count that.
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
from adaptive_nets.perforation.network import perforate
from adaptive_nets.perforation.plan import PerforationPlan
from kernels.perforated_conv import CompactTensor


class ExecutedMacs:
    """Counts for one network at one size of images; plan -> multiply-accumulates of one image.

    Every tap of every computed position counts, as in `adaptive_nets.analysis.count_macs`, with
    which an empty plan agrees.

    Args:
        model: the network.
        variables: its variables or their shapes.
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
        """Multiply-accumulates of one image; nothing is computed.

        Raises:
            UserError: the plan is for another network.
        """
        perforated = perforate(self._model, self._variables, plan, image_shape=self._shape)
        if not perforated.masks:
            return self.whole
        ledger = _Saved()
        interpreter = Interpreter(self._traced, perforated.masks, watcher=ledger)
        jax.eval_shape(interpreter.run, list(self._traced.arguments))
        return self.whole - ledger.macs


class _Saved(EquationObserver):
    """Taps of positions that convolutions do not compute."""

    def __init__(self) -> None:
        self.macs = 0

    def convolution(self, name: str, equation: Any, operands: Sequence[Any], output: Any) -> None:
        """A convolution has run."""
        if isinstance(output, CompactTensor):
            kernel = equation.invars[1].aval.shape
            spec = equation.params["dimension_numbers"].rhs_spec
            _, high, wide, outputs = output.shape
            skipped = high * wide - output.values.shape[1]
            self.macs += skipped * outputs * (math.prod(kernel) // kernel[spec[0]])
