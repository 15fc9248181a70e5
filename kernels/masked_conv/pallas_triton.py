"""Masked convolution for CUDA devices by Triton: forward pass at listed positions."""

from __future__ import annotations

import functools

from kernels._common.gather_conv.forward import masked_forward

forward = functools.partial(masked_forward, implementation="pallas_triton")
