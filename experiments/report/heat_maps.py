"""Maps as colours: alone, or over the photograph that they belong to."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

COLOUR_MAP = "inferno"
# Share of the map's colour; the rest is the photograph's brightness.
_OPACITY = 0.6


def levels(
    values: Float[np.ndarray, "H W"], low: float | None = None, high: float | None = None
) -> Float[np.ndarray, "H W"]:
    """Scales a map to [0, 1].

    Args:
        values: float[H, W].
        low: value of 0; the smallest if None.
        high: value of 1; the largest if None.

    Returns:
        float64[H, W]; 0 everywhere if low and high are equal.
    """
    low = float(values.min()) if low is None else low
    high = float(values.max()) if high is None else high
    return np.clip((values.astype(np.float64) - low) / max(high - low, 1e-12), 0, 1)


def coloured(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    """Draws values in [0, 1] in colours from dark to bright."""
    return matplotlib.colormaps[COLOUR_MAP](values, bytes=True)[..., :3]


def overlaid(
    picture: UInt8[np.ndarray, "H W C"], values: Float[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws values in [0, 1] as colours over the grey photograph.

    Args:
        picture: uint8[H, W, C]; C is 1 or 3.
        values: float[H, W] in [0, 1].
    """
    grey = picture.mean(axis=-1, keepdims=True)
    mixed = _OPACITY * coloured(values) + (1 - _OPACITY) * grey
    return np.rint(mixed).astype(np.uint8)


def png(pixels: UInt8[np.ndarray, "H W *C"]) -> bytes:
    """Encodes pixels uint8[H, W] or uint8[H, W, 3] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
