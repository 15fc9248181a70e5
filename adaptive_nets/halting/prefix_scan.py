"""Exclusive prefix scan over the units of a block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def exclusive_scan(operation: Callable[[Any, Array], Any], start: Any, values: Array) -> Any:
    """Folds values over units in order and returns the state before each unit.

    `lax.scan` rounds like a loop over the units, its compile time does not depend on L, and
    products are differentiable at zero factors, unlike a division of cumulative products.

    Args:
        operation: (state, value of a unit) -> state; a state is an array or a tuple of arrays.
        start: state before the first unit.
        values: [..., L]; the last value is ignored.

    Returns:
        The structure of `start`, with an axis of L units appended to each array.
    """

    def step(state, value):
        return operation(state, value), state

    last, earlier = lax.scan(step, start, jnp.moveaxis(values[..., :-1], -1, 0))
    return jax.tree.map(
        lambda es, e: jnp.moveaxis(jnp.concatenate([es, e[None]]), 0, -1), earlier, last
    )
