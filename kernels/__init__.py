"""Convolutions at selected output positions, for JAX.

`perforated_conv` takes a static mask and copies the nearest computed position to the others;
`masked_conv` takes a run-time mask per image and gives zeros elsewhere; `masked_unit` is a residual
unit at a run-time mask. All are differentiable functions on arrays with the same semantics in every
implementation; `record_implementations` collects the implementations that run. The package depends
on JAX and NumPy only. (Each function shadows the sub-package of its name, which is imported by
``from kernels.perforated_conv import ...``.)
"""

from kernels._common.dispatch import process_implementations, record_implementations

# Imported after the sub-packages, whose names these functions shadow.
from kernels.masked_conv.api import masked_conv
from kernels.masked_unit.api import masked_unit
from kernels.perforated_conv.api import perforated_conv
from kernels.perforated_conv.compact import CompactTensor, compact_tensor

__all__ = [
    "CompactTensor",
    "compact_tensor",
    "masked_conv",
    "masked_unit",
    "perforated_conv",
    "process_implementations",
    "record_implementations",
]
