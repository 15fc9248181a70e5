"""The convolution layer of all networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from kernels.dense_conv import conv_general_dilated


def _convolution() -> Callable[..., Any]:
    return conv_general_dilated


class Conv(nn.Conv):
    """`flax.linen.Conv` computed by `kernels.dense_conv`, which is faster on a CPU.

    Attributes, parameters and results are those of `flax.linen.Conv`.
    """

    conv_general_dilated_cls: Any = _convolution
