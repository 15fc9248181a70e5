"""Layers in float64 NumPy: the oracle of the networks' tests."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def conv(x, kernel, bias=None, *, stride=1, pad=0, groups=1):
    """Convolution of float[N, H, W, C] with HWIO kernels, padded by ``pad`` on every side."""
    x = np.pad(np.asarray(x, np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    kernel = np.asarray(kernel, np.float64)
    windows = sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    inputs = np.split(windows, groups, axis=3)
    outputs = np.split(kernel, groups, axis=3)
    y = np.concatenate(
        [np.einsum("nhwcij,ijco->nhwo", a, b) for a, b in zip(inputs, outputs, strict=True)],
        axis=3,
    )
    return y if bias is None else y + np.asarray(bias, np.float64)


def pool(x, size, stride, *, pad=0, reduce=np.max):
    """Pooling over whole windows; padding counts as -inf."""
    pads = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    x = np.pad(np.asarray(x, np.float64), pads, constant_values=-np.inf)
    windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
    return reduce(windows, axis=(-2, -1))


def relu(x):
    """Negative values become 0."""
    return np.maximum(x, 0)
