"""Pictures at their own size: decoding, sizes of equal proportions, resizing."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.image_files import to_mode
from adaptive_nets.runtime.reading import read_file


def read_picture(
    path: str | Path, *, mode: Literal["RGB", "L"] = "RGB"
) -> UInt8[np.ndarray, "H W C"]:
    """Reads an image file at its own size, upright as EXIF says; see `decode_picture`.

    Raises:
        AbsentDataError: there is no such file.
        DamagedDataError: it is no image, or cannot be decoded.
    """
    try:
        content = read_file(path)
    except FileNotFoundError as error:
        raise AbsentDataError(f"image {path} does not exist; expected an image file") from error
    except OSError as error:
        raise DamagedDataError(
            f"{path} cannot be read: {error_summary(error)}; expected an image file"
        ) from error
    return decode_picture(content, str(path), mode=mode, upright=True)


def decode_picture(
    content: bytes, where: str, *, mode: Literal["RGB", "L"] = "RGB", upright: bool = False
) -> UInt8[np.ndarray, "H W C"]:
    """Decodes a picture at its own size.

    Grey becomes colour or colour grey as `mode` asks; 16-bit grey is scaled to 8 bits; transparent
    pixels are laid over white.

    Args:
        content: bytes of the file.
        where: name of the file, for messages.
        mode: "RGB" for three channels, "L" for one.
        upright: whether to apply the orientation of EXIF. Fixations are recorded on pixels as they
            are stored.

    Raises:
        DamagedDataError: the bytes are no image, or cannot be decoded.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are only large, and refuses those that are too large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as opened:
                image = ImageOps.exif_transpose(opened) if upright else opened
                pixels = np.asarray(to_mode(image, mode), np.uint8)
    except Exception as error:  # Decoders raise what they like.
        raise DamagedDataError(
            f"{where} cannot be read as an image ({_reason(error)}); expected PNG, JPEG or "
            "another format of Pillow"
        ) from error
    return pixels[..., None] if mode == "L" else pixels


def fitted_size(size: tuple[int, int], longer_side: int, *, multiple: int = 1) -> tuple[int, int]:
    """Returns the size of a picture after a resize that keeps its proportions.

    Args:
        size: (H, W) of the picture.
        longer_side: longer side of the result.
        multiple: both sides are rounded to multiples of this number, at least one of it. Larger
            multiples give fewer distinct sizes, of slightly other proportions.

    Returns:
        (H, W).
    """
    scale = longer_side / max(size)
    height, width = (max(1, round(side * scale / multiple)) * multiple for side in size)
    return height, width


def resize_picture(
    pixels: UInt8[np.ndarray, "H W C"], size: tuple[int, int]
) -> UInt8[np.ndarray, "H2 W2 C"]:
    """Resizes a picture bilinearly; a smaller result averages the pixels that it covers.

    Args:
        pixels: uint8[H, W, C]; C is 1 or 3.
        size: (H2, W2) of the result; equal to (H, W) leaves the pixels unchanged.
    """
    from PIL import Image

    height, width = size
    if pixels.shape[:2] == (height, width):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(height, width, -1)


def _reason(error: Exception) -> str:
    """Summarises an error of a decoder; a name of bytes in memory says nothing."""
    text = error_summary(error)
    return "not an image" if "BytesIO" in text else text
