"""Counts of parameters and multiply-accumulates, and figures."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_nets.analysis.block_costs import unit_costs
    from adaptive_nets.analysis.macs import count_macs
    from adaptive_nets.analysis.parameters import count_params

__all__ = ["count_macs", "count_params", "unit_costs"]

_LAZY_EXPORTS = {
    "count_macs": "adaptive_nets.analysis.macs",
    "count_params": "adaptive_nets.analysis.parameters",
    "unit_costs": "adaptive_nets.analysis.block_costs",
}


def __getattr__(name: str):
    """Imports an export at its first use, so that reading the shipped counts needs no JAX."""
    if name in _LAZY_EXPORTS:
        return getattr(importlib.import_module(_LAZY_EXPORTS[name]), name)
    raise AttributeError(f"module 'adaptive_nets.analysis' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
