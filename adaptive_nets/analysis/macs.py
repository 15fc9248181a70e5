"""Multiply-accumulates of a network, counted from shapes.

The convention of the papers' code: every kernel tap of every computed position counts, taps that
fall on padding included; biases, normalisation, activations and pooling do not. FLOPs are twice the
MACs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.analysis.parameters import resolve_model
from adaptive_nets.layers import SparseConv, SparseDense


def _dense(layer: Any, x: Any, y: Any) -> int:
    return y.size * x.shape[-1]


def _conv(layer: Any, x: Any, y: Any) -> int:
    groups = getattr(layer, "feature_group_count", 1)
    return y.size * math.prod(layer.kernel_size) * x.shape[-1] // groups


# A kind of layer -> its MACs for one batch, from its input and output.
_RULES: dict[type, Callable[[Any, Any, Any], int]] = {
    nn.Dense: _dense,
    nn.Conv: _conv,
    SparseDense: _dense,
    SparseConv: _conv,
}


def count_macs(
    name_or_model: str | nn.Module,
    *,
    input_shape: tuple[int, int, int] | None = None,
    **overrides: Any,
) -> int:
    """Multiply-accumulates of one image's forward pass, every weight counted as present.

    Args:
        name_or_model: a registered name, or a linen module.
        input_shape: (H, W, C); the model's canonical one where a name is given.
        **overrides: passed to `create_model` with a name.
    """
    model, shape = resolve_model(name_or_model, input_shape, **overrides)
    total = 0

    def count(call, args, kwargs, context):
        nonlocal total
        output = call(*args, **kwargs)
        rule = _RULES.get(type(context.module))
        if rule is not None and context.method_name == "__call__":
            total += rule(context.module, args[0], output)
        return output

    def forward(x):
        with nn.intercept_methods(count):
            return model.init(jax.random.key(0), x, train=False)

    jax.eval_shape(forward, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return total
