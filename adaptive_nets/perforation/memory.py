"""Activations of a network, counted while it is traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.perforation.compact_rules import Tiles
from adaptive_nets.perforation.interpreter import Interpreter, Watcher, trace
from adaptive_nets.perforation.network import PerforatedModel
from adaptive_nets.perforation.plan import PerforationPlan
from kernels.perforated_conv import CompactTensor


def measure_activations(
    model: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    plan: PerforationPlan | None,
) -> tuple[int, int]:
    """Bytes stored and the most of them at a time, as `activation_bytes` gives them."""
    masks = {}
    if plan is not None:
        perforated = PerforatedModel(model, plan)
        perforated.check(variables, image_shape)
        masks = perforated.masks
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    traced = trace(model, variables, x, train=False)
    ledger = _Ledger()
    jax.eval_shape(Interpreter(traced, masks, watcher=ledger).run, list(traced.arguments))
    return ledger.stored, ledger.stored


class _Ledger(Watcher):
    def __init__(self) -> None:
        self.stored = 0

    def equation(self, equation: Any, operands: Sequence[Any], outputs: Sequence[Any]) -> None:
        if equation.primitive.name == "conv_general_dilated":
            self.stored += _bytes(outputs[0])


def _bytes(value: Any) -> int:
    if isinstance(value, CompactTensor | Tiles):
        value = value.values if isinstance(value, CompactTensor) else value.source.values
    return value.size * value.dtype.itemsize
