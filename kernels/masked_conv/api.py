"""Public function `masked_conv`: convolution at the active positions of a run-time mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels._common import dispatch
from kernels._common.arrays import as_arrays, vary_alike
from kernels._common.dispatch import Choice, Requested
from kernels._common.epilogue import as_bias, check_activation
from kernels._common.geometry import Geometry, Padding, is_static, make_geometry, positive_integer
from kernels._common.requirements import KERNEL_PLATFORMS
from kernels._common.target import current_target
from kernels.masked_conv import cost, pallas, reference, xla

IMPLEMENTATIONS = ("xla", "dense", "reference", *KERNEL_PLATFORMS)

_PREFERRED = {
    "cpu": ("xla", "dense"),
    "gpu": ("pallas_triton", "mosaic_gpu", "xla", "dense"),
    "tpu": ("mosaic_tpu", "xla", "dense"),
}

Compute = Callable[[Array, Array, Array], Float[Array, "N H2 W2 O"]]


def masked_conv(
    x: Float[Array, "N H W C"],
    w: Float[Array, "KH KW Cg O"],
    mask: Bool[Array, "N H2 W2"],
    *,
    bias: Float[Array, " O"] | None = None,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
    capacity: int | None = None,
    activation: Literal["relu"] | None = None,
    implementation: Requested = None,
) -> Float[Array, "N H2 W2 O"]:
    """Computes a convolution where a run-time mask is True and zero elsewhere.

    ``y[n, p] = mask[n, p] · act(conv(x, w)[n, p] + bias)`` [figurnov2017]. Differentiable in x, w
    and bias, in forward and reverse mode and any number of times. A new mask of the same shape does
    not retrace. The batch may be symbolic (`jax.export`).

    Args:
        x: float[N, H, W, C] in float32, bfloat16 or float16.
        w: float[KH, KW, C / groups, O] in x's dtype. Sums are float32.
        mask: bool[N, H', W'], one mask per image.
        bias: float[O], added at active positions only.
        strides: (vertical, horizontal), or one number for both.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or one number for all sides.
        groups: number of channel groups.
        capacity: maximum number of active positions over all images to list; None for no limit. If
            a mask exceeds it, every position is computed. The result never depends on it; time
            does, and for the Pallas kernels also memory.
        activation: "relu" or None.
        implementation: None chooses and may fall back; a name of `IMPLEMENTATIONS` selects that one
            or raises; a sequence is tried in order. "xla" computes every position if the mask has
            more active positions than its break-even. `choose` returns what None selects.

    Returns:
        float[N, H', W', O] in x's dtype.

    Raises:
        ValueError: an argument is invalid; the message names it.
        NotImplementedError: a named implementation does not support the inputs or the device.

    Example:
        >>> x, w = jnp.ones((2, 4, 4, 8)), jnp.ones((3, 3, 8, 16))
        >>> mask = jnp.zeros((2, 4, 4), bool).at[0, 1, 2].set(True)
        >>> float(masked_conv(x, w, mask).sum())
        1152.0
    """
    check_activation(activation)
    x, w, mask = vary_alike(*as_arrays(x=x, w=w, mask=mask))
    _, compute = _resolve(x, w, mask, strides, padding, groups, capacity, implementation)
    y = compute(x, w, mask)
    if bias is not None:
        bias = as_bias(bias, w.shape[3])
        shifted = y + bias.astype(y.dtype).reshape(1, 1, 1, -1)
        y = jnp.where(mask[..., None], shifted, jnp.zeros((), y.dtype))
    return jax.nn.relu(y) if activation else y


def choose(
    x: Float[Array, "N H W C"] | jax.ShapeDtypeStruct,
    w: Float[Array, "KH KW Cg O"] | jax.ShapeDtypeStruct,
    mask: Bool[Array, "N H2 W2"] | jax.ShapeDtypeStruct,
    *,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
    capacity: int | None = None,
    implementation: Requested = None,
) -> Choice:
    """Returns what `masked_conv` runs with these arguments, for records; computes nothing."""
    x, w, mask = as_arrays(x=x, w=w, mask=mask)
    return _resolve(x, w, mask, strides, padding, groups, capacity, implementation)[0]


def _resolve(
    x, w, mask, strides, padding, groups, capacity, implementation
) -> tuple[Choice, Compute]:
    geometry = make_geometry(x, w, strides=strides, padding=padding, groups=groups)
    _check_mask(mask, geometry)
    if capacity is not None:
        capacity = positive_integer("capacity", capacity, smallest=0)

    def bind(function, *more):
        return lambda: lambda x, w, mask: function(x, w, mask, geometry, *more)

    positions = geometry.batch * geometry.positions
    path = "sparse or dense" if cost.may_exceed_limit(geometry, capacity) else "sparse"
    choice, compute = dispatch.first_supported(
        "masked_conv",
        implementation,
        {
            "xla": bind(xla.forward, capacity),
            "dense": bind(xla.dense),
            "reference": bind(reference.forward),
            **{
                name: lambda n=name: pallas.bind(n, x, w, mask, geometry, capacity)
                for name in KERNEL_PLATFORMS
            },
        },
        _PREFERRED.get(current_target().platform, _PREFERRED["cpu"]),
        execution_paths={"xla": path},
    )
    if choice.implementation == "xla" and is_static(positions):
        limit = cost.limit(geometry, capacity)
        choice = dataclasses.replace(
            choice,
            detail=f"gathered up to {positions if limit is None else limit} of {positions} "
            "positions, dense beyond",
        )
    return choice, compute


def _check_mask(mask, geometry: Geometry) -> None:
    expected = (geometry.batch, *geometry.output_size)
    if jnp.dtype(mask.dtype) != jnp.bool_ or tuple(mask.shape) != expected:
        raise ValueError(
            f"mask is {mask.dtype}{list(mask.shape)}; expected bool{list(expected)}, one value per "
            "output position of each image"
        )
