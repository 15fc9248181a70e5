"""Dense convolution whose CPU form is fast for groups and for gradients."""

from kernels.dense_conv.api import conv_general_dilated
from kernels.dense_conv.direct import direct
from kernels.dense_conv.primitive import with_fast_primitive

__all__ = ["conv_general_dilated", "direct", "with_fast_primitive"]
