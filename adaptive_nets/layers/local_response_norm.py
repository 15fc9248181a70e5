"""Local response normalisation across neighbouring channels [krizhevsky2012]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.arguments import as_array
from adaptive_nets.runtime.errors import UserError


def local_response_norm(
    x: Float[Array, "... C"],
    *,
    size: int = 5,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    divide_by_size: bool = True,
) -> Float[Array, "... C"]:
    """Divides every value by a power of the energy of its neighbouring channels.

    ``x / (k + a * sum of x**2 over the window)**beta``. The window is centred and has ``size``
    channels, clipped at the first and last channel. For an even size it has one more channel before
    the centre than after it.

    Args:
        x: float[..., C].
        size: number of channels in the window.
        alpha: weight of the energy.
        beta: exponent.
        k: constant added to the energy: 2 in [krizhevsky2012], 1 in Caffe's networks.
        divide_by_size: whether ``a`` is ``alpha / size``, as in Caffe and PyTorch, or ``alpha``, as
            in the paper.

    Returns:
        float[..., C] in the dtype of ``x``; computed in float32 or wider.

    Raises:
        UserError: `size` is less than 1.
    """
    x = as_array("x", x)
    if size < 1:
        raise UserError(f"size of a normalisation window is {size}; expected at least 1 channel")
    values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    before = size // 2
    energy = jax.lax.reduce_window(
        jnp.square(values),
        0.0,
        jax.lax.add,
        (1,) * (x.ndim - 1) + (size,),
        (1,) * x.ndim,
        ((0, 0),) * (x.ndim - 1) + ((before, size - 1 - before),),
    )
    scale = alpha / size if divide_by_size else alpha
    return (values / jnp.power(k + scale * energy, beta)).astype(x.dtype)
