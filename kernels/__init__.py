"""Convolutions that compute some positions only, for JAX.

`perforated_conv` has a fixed mask and copies the nearest computed position into the others;
`masked_conv` has a run-time mask per image and leaves zeros. Both are plain functions on arrays,
differentiable, with one meaning for all implementations. The package imports nothing but JAX and
NumPy. (Each function hides the sub-package of its name: reach that by
``from kernels.perforated_conv import ...``.)
"""

# The functions after the sub-packages, whose names they take.
from kernels.masked_conv.api import masked_conv
from kernels.perforated_conv.api import perforated_conv
from kernels.perforated_conv.compact import CompactTensor, compact_tensor

__all__ = ["CompactTensor", "compact_tensor", "masked_conv", "perforated_conv"]
