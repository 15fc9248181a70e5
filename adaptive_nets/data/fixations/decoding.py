"""Fixation maps from the bytes of their files."""

from __future__ import annotations

import io
import warnings

import numpy as np
from jaxtyping import Bool, Float32

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.pictures import decode_picture

FIXATED = 127
"""Grey value above which a pixel of an image of single fixations is one. They are white on black;
JPEG of quality 60 and more keeps them above 200 and their surroundings below 60."""
_LOCATIONS = "fixLocs"


def decode_density(content: bytes, where: str) -> Float32[np.ndarray, "H W"]:
    """Decodes a blurred fixation map from a grey image, on its scale from 0 to 255.

    Raises:
        DamagedDataError: the bytes are no image, or the map is 0 everywhere.
    """
    density = decode_picture(content, where, mode="L")[..., 0].astype(np.float32)
    if not density.any():
        raise DamagedDataError(f"{where} has no fixations: it is black; expected a fixation map")
    return density


def decode_points(content: bytes, where: str) -> Bool[np.ndarray, "H W"]:
    """Decodes single fixations: white pixels of a grey image, or the matrix of a MATLAB file.

    Args:
        content: bytes of an image or of a .mat file of version 5.
        where: name of the file, for messages; its ending tells the two apart.

    Raises:
        DamagedDataError: the file cannot be decoded or has no fixations.
    """
    if where.split(" in ")[0].lower().endswith(".mat"):
        fixated = _matrix(content, where) > 0
    else:
        fixated = decode_picture(content, where, mode="L")[..., 0] > FIXATED
    if not fixated.any():
        raise DamagedDataError(f"{where} has no fixations; expected at least one")
    return fixated


def _matrix(content: bytes, where: str) -> np.ndarray:
    from scipy import io as scipy_io

    try:
        with warnings.catch_warnings():
            # Warns of names that are in a file twice.
            warnings.simplefilter("ignore")
            found = scipy_io.loadmat(io.BytesIO(content))
    except Exception as error:  # A damaged file fails anywhere in the parser.
        raise DamagedDataError(
            f"{where} cannot be read as a MATLAB file ({error_summary(error)}); expected one of "
            "version 5 to 7"
        ) from error
    matrices = {
        name: value
        for name, value in found.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "buif"
    }
    if _LOCATIONS not in matrices and len(matrices) != 1:
        names = ", ".join(sorted(matrices)) or "none"
        raise DamagedDataError(
            f"{where} has no matrix {_LOCATIONS} (matrices: {names}); expected the fixated pixels"
        )
    return matrices.get(_LOCATIONS, next(iter(matrices.values())))
