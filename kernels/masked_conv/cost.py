"""Break-even of gathered-row products against the dense convolution on a CPU."""

from __future__ import annotations

from kernels._common.cost import FEW_GROUPS, GATHER, ROW_ENDS
from kernels._common.geometry import Geometry


def break_even(geometry: Geometry) -> int:
    """Returns the number of active positions over all images above which dense is faster."""
    per_group = geometry.outputs / geometry.groups
    if 1 < geometry.groups <= FEW_GROUPS:
        # XLA's grouped convolution is never faster on a CPU.
        return geometry.batch * geometry.positions
    dense = 1.0 if geometry.pointwise else 1 + ROW_ENDS / max(geometry.output_size[1], 1)
    share = dense / (1 + GATHER / per_group)
    return int(min(share, 1.0) * geometry.batch * geometry.positions)
