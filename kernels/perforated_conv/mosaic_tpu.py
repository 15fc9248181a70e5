"""Perforated convolution for TPUs: compact forward pass."""

from __future__ import annotations

import functools

from kernels._common.gather_conv.forward import perforated_forward

forward = functools.partial(perforated_forward, implementation="mosaic_tpu")
