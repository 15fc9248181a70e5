"""Convolutions that compute some positions only, for JAX.

`perforated_conv` has a fixed mask and copies the nearest computed position into the others;
`masked_conv` has a run-time mask per image and leaves zeros; `masked_unit` is a whole residual unit
at a run-time mask. All are differentiable functions on arrays, and every implementation computes
the same result; `record_implementations` collects which ones run. The package imports nothing but
JAX and NumPy. (Each function hides the sub-package of its name: reach that by
``from kernels.perforated_conv import ...``.)
"""

from kernels._common.dispatch import process_implementations, record_implementations

# The functions after the sub-packages, whose names they take.
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
