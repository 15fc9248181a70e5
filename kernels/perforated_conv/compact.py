"""Compact maps, stored at kept positions only, and pooling that reads them.

A perforated convolution need not write the copies: the next layer can read every position through
the nearest-kept map [figurnov2016, implicit interpolation]. Position-wise functions (bias, ReLU,
1x1 convolution, normalisation) apply to the stored values directly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from kernels._common.arrays import as_array, describe
from kernels._common.geometry import Padding, explicit_padding, pair
from kernels.perforated_conv.plan import Plan, make_plan

Fill = Literal["nearest", "zeros", "compact"]


@jax.tree_util.register_pytree_node_class
class CompactTensor:
    """Map float[N, H, W, C] of which only the kept positions are stored.

    Attributes:
        values: float[N, P, C], kept positions in row-major order.
        plan: kept positions and nearest-kept map.
    """

    def __init__(self, values: Float[Array, "N P C"], plan: Plan) -> None:
        # NumPy arrays lack what the operations need; anything else comes from pytree functions.
        self.values = jnp.asarray(values) if isinstance(values, np.ndarray) else values
        self.plan = plan

    def tree_flatten(self):
        """Flattens the tensor; values are the child, the plan is static."""
        return (self.values,), self.plan

    @classmethod
    def tree_unflatten(cls, plan, children):
        """Inverts `tree_flatten`."""
        return cls(children[0], plan)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Returns the shape of the filled map, (N, H, W, C)."""
        return (self.values.shape[0], *self.plan.size, self.values.shape[2])

    @property
    def dtype(self) -> jnp.dtype:
        """Returns the dtype of the values."""
        return self.values.dtype

    def replace(self, values: Float[Array, "N P D"]) -> CompactTensor:
        """Returns a tensor with other values at the same positions, such as after a ReLU."""
        return CompactTensor(values, self.plan)

    def filled(self) -> Float[Array, "N H W C"]:
        """Returns the filled map, with every position written."""
        return fill_positions(self.values, self.plan, "nearest")


def compact_tensor(
    values: Float[Array, "N P C"], mask: np.ndarray, nearest: np.ndarray | None = None
) -> CompactTensor:
    """Wraps the result of ``perforated_conv(..., fill="compact")`` as a `CompactTensor`.

    Args:
        values: float[N, P, C].
        mask: bool[H, W] with P kept positions, the mask of the convolution.
        nearest: int[H, W], nearest-kept map; by default computed as by `perforated_conv`.

    Raises:
        ValueError: the number of values is not the number of kept positions.
    """
    plan = make_plan(mask, nearest)
    values = as_array("values", values)
    if values.ndim != 3 or values.shape[1] != plan.kept:
        raise ValueError(
            f"values has shape {values.shape}; expected [N, {plan.kept}, C], one row per kept "
            "position of the mask"
        )
    return CompactTensor(values, plan)


def fill_positions(y: Float[Array, "N P O"], plan: Plan, fill: Fill) -> Array:
    """Expands kept positions to a map filled with nearest copies or zeros; "compact" keeps them."""
    if fill == "compact":
        return y
    n, _, outputs = y.shape
    height, width = plan.size
    if plan.kept < height * width:
        y = y.at[:, plan.source].get(mode="promise_in_bounds")
        if fill == "zeros":
            y = jnp.where(plan.mask.reshape(1, -1, 1), y, jnp.zeros((), y.dtype))
    return y.reshape(n, height, width, outputs)


def max_pool(
    x: CompactTensor,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "N H2 W2 C"]:
    """Computes the maximum over windows of the filled map without writing it.

    Args:
        x: compact map.
        window: (height, width), or one number for both.
        strides: (vertical, horizontal), or one number for both; by default the window.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or one number for all sides;
            padding is −inf.

    Returns:
        float[N, H', W', C].
    """
    return _pool(x, window, strides, padding, jnp.maximum, -jnp.inf)


def min_pool(
    x: CompactTensor,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "N H2 W2 C"]:
    """Computes the minimum over windows; padding is inf. Arguments as of `max_pool`."""
    return _pool(x, window, strides, padding, jnp.minimum, jnp.inf)


def sum_pool(
    x: CompactTensor,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "N H2 W2 C"]:
    """Computes the sum over windows; padding is zero. Arguments as of `max_pool`."""
    return _pool(x, window, strides, padding, jnp.add, 0.0)


def avg_pool(
    x: CompactTensor,
    window: int | Sequence[int],
    strides: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
) -> Float[Array, "N H2 W2 C"]:
    """Computes the mean over windows, padding included as zeros. Arguments as of `max_pool`."""
    height, width = pair("window", window)
    return sum_pool(x, (height, width), strides, padding) / (height * width)


def global_avg_pool(x: CompactTensor) -> Float[Array, "N C"]:
    """Averages over all positions of the filled map: kept values weighted by number of copies."""
    copies = np.bincount(x.plan.source, minlength=x.plan.kept) / len(x.plan.source)
    return jnp.einsum("npc,p->nc", x.values, jnp.asarray(copies, x.dtype))


def _pool(x: CompactTensor, window, strides, padding, combine, neutral) -> Array:
    if not isinstance(x, CompactTensor):
        raise ValueError(f"x is {describe(x)}; expected a CompactTensor (see compact_tensor)")
    window = pair("window", window)
    strides = window if strides is None else pair("strides", strides)
    padding = explicit_padding(padding, x.plan.size, window, strides)
    table, size = window_table(x.plan, window, strides, padding)
    values = x.values
    if (table == x.plan.kept).any():
        border = jnp.full((values.shape[0], 1, values.shape[2]), neutral, values.dtype)
        values = jnp.concatenate([values, border], axis=1)
    # Reduced tap by tap, so that no array of all windows is materialised.
    columns = [values.at[:, tap].get(mode="promise_in_bounds") for tap in table.T]
    pooled = functools.reduce(combine, columns)
    return pooled.reshape(values.shape[0], *size, values.shape[2])


@functools.lru_cache(maxsize=512)
def window_table(
    plan: Plan,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> tuple[np.ndarray, tuple[int, int]]:
    """Computes the index of the kept position that each tap of each window reads.

    Args:
        plan: plan of the compact map.
        window: (height, width).
        strides: (vertical, horizontal).
        padding: ((top, bottom), (left, right)).

    Returns:
        int32[H'·W', T], indices below P, or P for padding; and (H', W').
    """
    numbers = np.pad(plan.source.reshape(plan.size), padding, constant_values=plan.kept)
    sizes = [(n - k) // s + 1 for n, k, s in zip(numbers.shape, window, strides, strict=True)]
    size = (max(sizes[0], 0), max(sizes[1], 0))
    y, x = np.indices(size).reshape(2, -1, 1)
    dy, dx = np.indices(window).reshape(2, 1, -1)
    return numbers[y * strides[0] + dy, x * strides[1] + dx].astype(np.int32), size


def dense_positions(y: Float[Array, "N H W O"], plan: Plan) -> Float[Array, "N P O"]:
    """Gathers the kept positions of a dense map."""
    flat = y.reshape(y.shape[0], plan.size[0] * plan.size[1], y.shape[3])
    if plan.kept == flat.shape[1]:
        return flat
    return flat.at[:, plan.positions].get(mode="promise_in_bounds")
