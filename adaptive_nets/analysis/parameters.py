"""Parameter counts of networks."""

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
    """Returns the module and input shape of a registered name or of a given module.

    Raises:
        UserError: no model has this name.
        ValueError: a module is given without an input shape.
    """
    if isinstance(name_or_model, str):
        entry = model_entry(name_or_model)
        return create_model(name_or_model, **overrides), input_shape or entry.input_shape
    if input_shape is None:
        raise ValueError("input_shape is needed with a module; expected (H, W, C)")
    return name_or_model, input_shape


def count_params(
    name_or_model: str | nn.Module,
    *,
    input_shape: tuple[int, ...] | None = None,
    **overrides: Any,
) -> int:
    """Counts the trainable parameters.

    Args:
        name_or_model: a registered name, or a linen module.
        input_shape: (H, W, C); the model's canonical shape if None and a name is given.
        **overrides: passed to `create_model` with a name.
    """
    model, shape = resolve_model(name_or_model, input_shape, **overrides)
    leaves = jax.tree.leaves(abstract_variables(model, shape)["params"])
    return sum(math.prod(leaf.shape) for leaf in leaves)
