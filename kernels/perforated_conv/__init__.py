"""Convolution at the kept positions of a static mask; other positions copy the nearest one."""

from kernels.perforated_conv.api import IMPLEMENTATIONS, choose, perforated_conv
from kernels.perforated_conv.compact import (
    CompactTensor,
    avg_pool,
    compact_tensor,
    global_avg_pool,
    max_pool,
    min_pool,
    sum_pool,
)

__all__ = [
    "IMPLEMENTATIONS",
    "CompactTensor",
    "avg_pool",
    "choose",
    "compact_tensor",
    "global_avg_pool",
    "max_pool",
    "min_pool",
    "perforated_conv",
    "sum_pool",
]
