"""How long each way of computing a perforated convolution takes on a CPU; the dense one takes 1.

Estimates, for choosing among them.
"""

from __future__ import annotations

from kernels._common.cost import FEW_GROUPS, FILL, GATHER, ROW_ENDS
from kernels._common.geometry import Geometry
from kernels._common.target import current_target
from kernels.perforated_conv.plan import Plan

# Rows of a product beyond which it runs at full speed.
_FEW_ROWS = 40.0
# A convolution with larger strides reads less of what it loads.
_STRIDED = 1.1
# XLA's grouped convolution over one per group.
_GROUPED = 3.0


def dense(geometry: Geometry) -> float:
    """Cost of the dense convolution: 1, and what short rows and groups cost it."""
    grouped = _GROUPED if 1 < geometry.groups <= FEW_GROUPS else 1
    return grouped + ROW_ENDS / geometry.output_size[1]


def gathered(geometry: Geometry, plan: Plan) -> float:
    """Cost of products of gathered rows."""
    rows = geometry.batch * plan.kept
    per_group = geometry.outputs / geometry.groups
    return plan.keep * (1 + GATHER / per_group) * (1 + _FEW_ROWS / max(rows, 1))


def strided(geometry: Geometry, plan: Plan) -> float | None:
    """Cost of a convolution with larger strides, None where the mask is no regular grid."""
    if plan.grid is None:
        return None
    return plan.keep * _STRIDED * (1 + ROW_ENDS / plan.grid.count[1])


def fill(geometry: Geometry) -> float:
    """Cost of writing the copies."""
    depth = geometry.taps * geometry.channels / geometry.groups
    return FILL / depth


def gradients_by_rows(geometry: Geometry, plan: Plan) -> bool:
    """Whether products of gathered rows give gradients sooner than XLA's own of a convolution.

    XLA's gradient for the weights runs at a third of the speed of a product or less on a CPU; thin
    layers lose more by gathering.
    """
    if current_target().platform != "cpu":
        return False
    return plan.keep < 1 and geometry.outputs // geometry.groups >= 32
