"""Convolutions of volumes on a CPU, as convolutions of images whose channels include the depth.

XLA's convolution of volumes with few channels computes a few products at a time. With depth and
channels in one axis the same convolution has D times the channels and a kernel that is banded: 0
where two depths are further apart than the window. It computes D/K times the products, K being the
depth of the window, and is still many times faster, since its channels fill the vector units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Convolve = Callable[..., Array]

# Most channels of the images; beyond, the products with zeros take longer than what they save.
_MOST_CHANNELS = 512

_IMAGES = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
# The weight gradient of a convolution of NHWC images, see `weight_gradient`.
_WEIGHT_GRADIENT = lax.ConvDimensionNumbers((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1))


def is_worthwhile(lhs: Array, rhs: Array, **params: Any) -> bool:
    """Checks whether a convolution is of volumes that are better treated as images.

    Args:
        lhs: input, in any layout.
        rhs: weights, in any layout.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    if lhs.ndim != 5 or not jnp.issubdtype(lhs.dtype, jnp.floating):
        return False
    steps = (params["window_strides"], params["lhs_dilation"], params["rhs_dilation"])
    if any(step[0] != 1 for step in steps):
        return False
    if params["feature_group_count"] != 1 or params["batch_group_count"] != 1:
        return False
    # The oldest supported JAX gave other values for images with negative padding.
    if min(min(pads) for pads in params["padding"]) < 0:
        return False
    _, depth, *_, features = _moved(lhs, params["dimension_numbers"].lhs_spec)
    window, *_, contracted, outputs = _moved_weights(rhs, params["dimension_numbers"].rhs_spec)
    result = depth + sum(params["padding"][0]) - window + 1
    if result < 1 or contracted != features:
        return False
    if window > result:
        return max(depth * _batch(lhs, params), window * outputs) <= _MOST_CHANNELS
    return max(depth * features, result * outputs) <= _MOST_CHANNELS


def compute(lhs: Array, rhs: Array, convolve: Convolve, **params: Any) -> Array:
    """Computes a convolution of volumes by one of images.

    Args:
        lhs: input, in any layout.
        rhs: weights, in any layout.
        convolve: convolution of images, with the parameters of the primitive.
        **params: parameters of `jax.lax.conv_general_dilated_p`.

    Returns:
        The result in the layout of `params`.
    """
    numbers = params["dimension_numbers"]
    volumes = jnp.transpose(lhs, (numbers.lhs_spec[0], *numbers.lhs_spec[2:], numbers.lhs_spec[1]))
    out_axis, in_axis, *window_axes = numbers.rhs_spec
    weights = jnp.transpose(rhs, (*window_axes, in_axis, out_axis))
    low, high = params["padding"][0]
    result = volumes.shape[1] + low + high - weights.shape[0] + 1
    images = {
        **params,
        **{name: params[name][1:]
           for name in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")},
    }  # fmt: skip
    form = _by_diagonals if weights.shape[0] > result else _by_band
    found = form(volumes, weights, low, result, convolve, images)
    # [N, D', H', W', O] to the layout of the result.
    batch_axis, feature_axis, *spatial_axes = numbers.out_spec
    order = np.argsort((batch_axis, *spatial_axes, feature_axis))
    return jnp.transpose(found, tuple(map(int, order)))


def _by_band(
    volumes: Float[Array, "N D H W C"], weights: Float[Array, "K h w C O"], low: int, result: int,
    convolve: Convolve, params: dict[str, Any],
) -> Float[Array, "N R H2 W2 O"]:  # fmt: skip
    """Convolves images with the banded kernel: windows shorter than the result."""
    n, depth, height, width, channels = volumes.shape
    window, *size, _, outputs = weights.shape
    # Depth of the window at which the input's depth d meets the output's depth r.
    meeting = np.arange(depth)[:, None] - np.arange(result)[None] + low
    inside = (meeting >= 0) & (meeting < window)
    band = jnp.where(
        inside[..., None, None, None, None], weights[np.clip(meeting, 0, window - 1)], 0
    )
    kernel = jnp.transpose(band, (2, 3, 0, 4, 1, 5))
    kernel = kernel.reshape(*size, depth * channels, result * outputs)
    images = jnp.transpose(volumes, (0, 2, 3, 1, 4)).reshape(n, height, width, depth * channels)
    found = convolve(images, kernel, **{**params, "dimension_numbers": _IMAGES})
    found = found.reshape(*found.shape[:3], result, outputs)
    return jnp.transpose(found, (0, 3, 1, 2, 4))


def _by_diagonals(
    volumes: Float[Array, "N D H W C"], weights: Float[Array, "K h w C O"], low: int, result: int,
    convolve: Convolve, params: dict[str, Any],
) -> Float[Array, "N R H2 W2 O"]:  # fmt: skip
    """Convolves every depth of the input with every depth of the window, and adds diagonals.

    It suits weight gradients, whose window is the whole map of output gradients.
    """
    n, depth, height, width, channels = volumes.shape
    window, *size, _, outputs = weights.shape
    images = jnp.transpose(volumes, (4, 2, 3, 1, 0)).reshape(channels, height, width, depth * n)
    maps = jnp.transpose(weights, (3, 1, 2, 0, 4)).reshape(channels, *size, window * outputs)
    found = convolve(images, maps, **{**params, "dimension_numbers": _WEIGHT_GRADIENT})
    high, wide = found.shape[:2]
    found = found.reshape(high, wide, depth, n, window, outputs)
    sums = []
    for r in range(result):
        ks = [k for k in range(window) if 0 <= r + k - low < depth]
        at = np.array(ks, int)
        sums.append(jnp.sum(found[:, :, at + r - low, :, at, :], axis=0, dtype=found.dtype)
                    if ks else jnp.zeros((high, wide, n, outputs), found.dtype))  # fmt: skip
    # [R, H', W', N, O] to [N, R, H', W', O].
    return jnp.transpose(jnp.stack(sums), (3, 0, 1, 2, 4))


def _moved(lhs: Array, spec: tuple[int, ...]) -> tuple[int, ...]:
    batch, feature, *spatial = spec
    return tuple(lhs.shape[axis] for axis in (batch, *spatial, feature))


def _moved_weights(rhs: Array, spec: tuple[int, ...]) -> tuple[int, ...]:
    out, into, *spatial = spec
    return tuple(rhs.shape[axis] for axis in (*spatial, into, out))


def _batch(lhs: Array, params: dict[str, Any]) -> int:
    return lhs.shape[params["dimension_numbers"].lhs_spec[0]]
