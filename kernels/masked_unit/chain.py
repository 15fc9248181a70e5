"""Data of a residual unit: the state of its block, and its chain of convolutions."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class BlockState(NamedTuple):
    """State of a block between two of its units.

    Attributes:
        x: float[N, H, W, C], input of the next unit.
        total: float[N, H, W, C], weighted sum of states so far; units add their residual times a
            share to it. None if the block's output is its last state.
        sums: float32[N, C], sums of x over positions; None if they are not needed.
    """

    x: Float[Array, "N H W C"]
    total: Float[Array, "N H W C"] | None = None
    sums: Float[Array, "N C"] | None = None


class Chain(NamedTuple):
    """Residual function of a unit: ``conv_L(act(... act(conv_1(pre(x)) + b_1) ...)) + b_L``.

    Attributes:
        kernels: HWIO weights.
        biases: one per kernel, or None.
        scale: float[C] of ``pre(x) = act(x·scale + shift)``, or None.
        shift: float[C], or None; if both are None, pre is the identity.
        negative_slope: of act, a (leaky) ReLU.
        activates_sum: whether the unit's output is act(x + f(x)) instead of x + f(x).
    """

    kernels: tuple[Float[Array, "KH KW I O"], ...]
    biases: tuple[Float[Array, " O"] | None, ...]
    scale: Float[Array, " C"] | None
    shift: Float[Array, " C"] | None
    negative_slope: float
    activates_sum: bool = False

    def activate(self, y: Array) -> Array:
        """Applies ReLU or leaky ReLU."""
        if self.negative_slope == 0:
            return jax.nn.relu(y)
        return jnp.where(y >= 0, y, jnp.asarray(self.negative_slope, y.dtype) * y)

    def before(self, x: Array) -> Array:
        """Computes ``pre(x)`` of x[..., C]."""
        if self.scale is None and self.shift is None:
            return x
        ones = (1,) * (x.ndim - 1)
        if self.scale is not None:
            x = x * self.scale.astype(x.dtype).reshape(*ones, -1)
        if self.shift is not None:
            x = x + self.shift.astype(x.dtype).reshape(*ones, -1)
        return self.activate(x)

    def after(self, y: Array, i: int) -> Array:
        """Adds the bias of convolution i to its product and activates it, unless it is the last."""
        bias = self.biases[i]
        if bias is not None:
            y = y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))
        return y if i == len(self.kernels) - 1 else self.activate(y)

    def add(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Returns the unit's output from its input x and residual y, and the difference to x."""
        if not self.activates_sum:
            return x + y, y
        out = self.activate(x + y)
        return out, out - x


def dilate(mask: Bool[Array, "N H W"], window: tuple[int, int]) -> Bool[Array, "N H W"]:
    """Dilates a mask: marks the positions that a window centred on an active position covers.

    Args:
        mask: bool[N, H, W].
        window: (height, width), odd.

    Returns:
        bool[N, H, W].
    """
    if window == (1, 1):
        return mask
    # XLA on CPU is far quicker with shifted copies than with its window reduction on bools.
    padded = jnp.pad(mask, ((0, 0), *[(k // 2, k // 2) for k in window]))
    height, width = mask.shape[1:]
    shifts = [
        padded[:, i : i + height, j : j + width] for i in range(window[0]) for j in range(window[1])
    ]
    return functools.reduce(jnp.logical_or, shifts)
