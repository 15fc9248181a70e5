"""Convolution at the active positions of a run-time mask, with zeros elsewhere."""

from kernels.masked_conv.api import IMPLEMENTATIONS, choose, masked_conv

__all__ = ["IMPLEMENTATIONS", "choose", "masked_conv"]
