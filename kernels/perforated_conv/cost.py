"""Estimated CPU time of each execution path of a perforated convolution, relative to dense."""

from __future__ import annotations

from kernels._common.cost import FILL, GATHER, ROW_ENDS
from kernels._common.geometry import Geometry, is_static
from kernels._common.target import current_target
from kernels.perforated_conv.plan import Plan

# Fixed cost of a product, in rows.
_FEW_ROWS = 40.0
# Slowdown of larger strides, which use less of each loaded cache line.
_STRIDED = 1.1


def dense(geometry: Geometry) -> float:
    """Estimates the cost of the dense convolution: 1 plus overhead of short rows."""
    return 1 + ROW_ENDS / geometry.output_size[1]


def gathered(geometry: Geometry, plan: Plan) -> float:
    """Estimates the cost of products of gathered rows."""
    # A symbolic batch counts as one image.
    rows = (geometry.batch if is_static(geometry.batch) else 1) * plan.kept
    per_group = geometry.outputs / geometry.groups
    return plan.keep * (1 + GATHER / per_group) * (1 + _FEW_ROWS / max(rows, 1))


def strided(geometry: Geometry, plan: Plan) -> float | None:
    """Estimates the cost of a strided convolution; None if the mask is not a regular grid."""
    if plan.grid is None:
        return None
    return plan.keep * _STRIDED * (1 + ROW_ENDS / plan.grid.count[1])


def fill(geometry: Geometry) -> float:
    """Estimates the cost of writing the copies."""
    depth = geometry.taps * geometry.channels / geometry.groups
    return FILL / depth


def gradients_by_rows(geometry: Geometry, plan: Plan) -> bool:
    """Checks whether gathered-row products compute gradients faster than XLA's convolutions.

    On a CPU, XLA's weight gradient has at most a third of the throughput of a product. In layers
    with few channels the overhead of gathering is larger than that.
    """
    if current_target().platform != "cpu":
        return False
    return plan.keep < 1 and geometry.outputs // geometry.groups >= 32
