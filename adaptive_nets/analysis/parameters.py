"""What a network's parameters are, counted and listed."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax

from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.shapes import abstract_variables


def resolve_model(
    name_or_model: str | nn.Module, input_shape: tuple[int, ...] | None, **overrides: Any
) -> tuple[nn.Module, tuple[int, ...]]:
    """The module and the input size meant by a name, or by a module and its input size."""
    if isinstance(name_or_model, str):
        entry = model_entry(name_or_model)
        return create_model(name_or_model, **overrides), input_shape or entry.input_shape
    if input_shape is None:
        raise ValueError("input_shape is needed with a module: (H, W, C)")
    return name_or_model, input_shape


def count_params(
    name_or_model: str | nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    **overrides: Any,
) -> int:
    """Number of trainable parameters.

    Args:
        name_or_model: a registered name, or a linen module.
        input_shape: (H, W, C); the model's canonical one where a name is given.
        **overrides: passed to `create_model` with a name.
    """
    model, shape = resolve_model(name_or_model, input_shape, **overrides)
    leaves = jax.tree.leaves(abstract_variables(model, shape)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)
