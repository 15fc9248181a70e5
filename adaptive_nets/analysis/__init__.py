"""Counting parameters and multiply-accumulates."""

from adaptive_nets.analysis.macs import count_macs
from adaptive_nets.analysis.parameters import count_params

__all__ = ["count_macs", "count_params"]
