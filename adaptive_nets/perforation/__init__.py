"""PerforatedCNNs: masks of computed positions, and what fills the others."""

from adaptive_nets.perforation.masks import (
    graham_sequence,
    grid_mask,
    impact_mask,
    pooling_structure_mask,
    uniform_mask,
)
from adaptive_nets.perforation.nearest import nearest_kept
from adaptive_nets.perforation.pooling_counts import pooling_counts

__all__ = [
    "graham_sequence",
    "grid_mask",
    "impact_mask",
    "nearest_kept",
    "pooling_counts",
    "pooling_structure_mask",
    "uniform_mask",
]
