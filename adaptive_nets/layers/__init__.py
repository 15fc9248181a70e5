"""Thin linen modules: they own parameters and call the pure functions of the other rooms."""

from adaptive_nets.layers.kinds import PLAIN, LayerKind, PlainLayers, SparseVDLayers
from adaptive_nets.layers.pooling import max_pool
from adaptive_nets.layers.sparse_vd import SparseConv, SparseDense

__all__ = [
    "PLAIN",
    "LayerKind",
    "PlainLayers",
    "SparseConv",
    "SparseDense",
    "SparseVDLayers",
    "max_pool",
]
