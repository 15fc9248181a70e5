"""Perforated convolution for CUDA devices by Triton: compact forward pass."""

from __future__ import annotations

import functools

from kernels._common.gather_conv.forward import perforated_forward

forward = functools.partial(perforated_forward, implementation="pallas_triton")
