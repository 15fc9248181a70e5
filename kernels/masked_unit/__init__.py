"""Residual unit at the active positions of a run-time mask."""

from kernels.masked_unit.api import IMPLEMENTATIONS, choose, masked_unit, masked_unit_with_sums
from kernels.masked_unit.chain import BlockState, dilate
from kernels.masked_unit.logit_map import logit_map
from kernels.masked_unit.xla import ExecutionPath

__all__ = [
    "IMPLEMENTATIONS",
    "BlockState",
    "ExecutionPath",
    "choose",
    "dilate",
    "logit_map",
    "masked_unit",
    "masked_unit_with_sums",
]
