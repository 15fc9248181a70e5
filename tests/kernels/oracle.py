"""Convolutions written out in float64 NumPy, position by position."""

from __future__ import annotations

import numpy as np


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """TensorFlow's rule: the odd pixel goes behind."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def convolution(x, w, *, strides, padding, groups) -> np.ndarray:
    """float64[N, H', W', O] by one dot product per position."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    kh, kw, per_group, outputs = w.shape
    if padding == "SAME":
        sizes = zip(x.shape[1:3], (kh, kw), strides, strict=True)
        padding = [same_padding(*item) for item in sizes]
    elif padding == "VALID":
        padding = [(0, 0), (0, 0)]
    x = np.pad(x, [(0, 0), *padding, (0, 0)])
    height = (x.shape[1] - kh) // strides[0] + 1
    width = (x.shape[2] - kw) // strides[1] + 1
    y = np.zeros((x.shape[0], height, width, outputs))
    for row in range(height):
        for column in range(width):
            top, left = row * strides[0], column * strides[1]
            for output in range(outputs):
                group = output // (outputs // groups)
                channels = slice(group * per_group, (group + 1) * per_group)
                window = x[:, top : top + kh, left : left + kw, channels]
                y[:, row, column, output] = (window * w[..., output]).sum((1, 2, 3))
    return y


def copies(y, mask) -> list[list[set[int]]]:
    """For each position the set of kept positions that are nearest to it."""
    kept = np.argwhere(mask)
    result = []
    for row in range(mask.shape[0]):
        line = []
        for column in range(mask.shape[1]):
            squares = ((kept - (row, column)) ** 2).sum(1)
            nearest = kept[squares == squares.min()]
            line.append({int(a * mask.shape[1] + b) for a, b in nearest})
        result.append(line)
    return result
