"""What has come together before each unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array


def exclusive_scan(operation: Callable[[Any, Array], Any], start: Any, values: Array) -> Any:
    """Folds the units' values one after the other, keeping the result before each unit.

    A scan: rounding is that of a loop over the units, blocks of many units compile as fast as those
    of a few, and products have gradients where factors are zero.

    Args:
        operation: (state, value of a unit) -> state; a state is an array or a tuple of arrays.
        start: the state before the first unit.
        values: [..., L]; the last is not read.

    Returns:
        As `start`, with an axis of L units appended to each array.
    """

    def step(state, value):
        return operation(state, value), state

    last, earlier = lax.scan(step, start, jnp.moveaxis(values[..., :-1], -1, 0))
    return jax.tree.map(
        lambda es, e: jnp.moveaxis(jnp.concatenate([es, e[None]]), 0, -1), earlier, last
    )
