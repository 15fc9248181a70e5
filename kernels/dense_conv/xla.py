"""Choice of the algorithm of a dense convolution on a CPU, by its shapes."""

from __future__ import annotations

import math
from typing import Any

from jax import lax
from jax.sharding import AxisType
from jaxtyping import Array

from kernels.dense_conv import grouped, input_gradient, volume, weight_gradient


def convolve(lhs: Array, rhs: Array, *, one_device: bool, **params: Any) -> Array:
    """Computes a convolution by the algorithm chosen for its shapes.

    Args:
        lhs: input, in any layout.
        rhs: weights, in any layout.
        one_device: whether one device holds the operands; loops over images and parts of a
            batch are slow if the partitioner has divided it.
        **params: parameters of `jax.lax.conv_general_dilated_p`.
    """
    plain = _has_known_shapes(lhs, rhs) and not _divides(params.get("out_sharding"))
    if not plain or not math.prod(lhs.shape) * math.prod(rhs.shape):
        return lax.conv_general_dilated_p.bind(lhs, rhs, **params)
    if one_device and volume.is_worthwhile(lhs, rhs, **params):

        def of_images(lhs, rhs, **params):
            return convolve(lhs, rhs, one_device=one_device, **params)

        return volume.compute(lhs, rhs, of_images, **params)
    if params["feature_group_count"] > 1 or params["batch_group_count"] > 1:

        def ungrouped(lhs, rhs, **params):
            return convolve(lhs, rhs, one_device=one_device, **params)

        return grouped.convolve(lhs, rhs, ungrouped, **params)
    if one_device and weight_gradient.is_weight_gradient(lhs, rhs, **params):
        return weight_gradient.compute(lhs, rhs, **params)
    if one_device and input_gradient.is_worthwhile(lhs, rhs, **params):
        return input_gradient.by_taps(lhs, rhs, **params)
    return lax.conv_general_dilated_p.bind(lhs, rhs, **params)


def _divides(out_sharding: Any) -> bool:
    """Checks whether a sharding of the output has an effect.

    JAX notes one in every gradient under a mesh, also of one device and of automatic axes.
    """
    if out_sharding is None:
        return False
    mesh = out_sharding.mesh
    return mesh.size > 1 and AxisType.Explicit in mesh.axis_types


def _has_known_shapes(*operands: Array) -> bool:
    return all(isinstance(size, int) for operand in operands for size in operand.shape)
