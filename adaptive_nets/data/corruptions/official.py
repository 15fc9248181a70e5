"""Reader of the official files of CIFAR-10-C and CIFAR-100-C."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from adaptive_nets.data.corruptions.kinds import check_kind, check_severity
from adaptive_nets.data.corruptions.parameters import SEVERITIES
from adaptive_nets.data.errors import DamagedDataError, PartialDataError
from adaptive_nets.data.folders import error_summary, list_names
from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.reading import check_file

FOLDERS: Mapping[str, str] = MappingProxyType({"cifar10": "CIFAR-10-C", "cifar100": "CIFAR-100-C"})
"""Name of a set -> name of the folder with its corrupted test images."""

LABELS_FILE = "labels.npy"

_IMAGE_SHAPE = (32, 32, 3)
_REMEDY = "fetch the official file again"


def official_corruptions(root: Path, data: Literal["cifar10", "cifar100"]) -> Path | None:
    """Finds the official corrupted test images of a set.

    Args:
        root: data root.
        data: ``"cifar10"`` or ``"cifar100"``.

    Returns:
        The folder ROOT/CIFAR-10-C or ROOT/CIFAR-100-C, or None if it does not exist or holds no
        ``.npy`` file.

    Raises:
        UserError: there is no such set.
        DamagedDataError: the folder cannot be read.
    """
    if data not in FOLDERS:
        raise UserError(f"{data!r} has no official corruptions; {did_you_mean(data, FOLDERS)}")
    folder = Path(root) / FOLDERS[data]
    return folder if any(name.endswith(".npy") for name in list_names(folder)) else None


def load_official(path: Path, kind: str, severity: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads the corrupted test images of one kind and severity.

    A file holds the whole test set five times, severity after severity. The images are mapped into
    memory, so that only the pages in use are read.

    Args:
        path: folder of the files, see `official_corruptions`.
        kind: one of `CORRUPTIONS`.
        severity: 1 to 5.

    Returns:
        Images uint8[N, 32, 32, 3], read-only, and labels int32[N]; N is 10,000 in the official
        files.

    Raises:
        UserError: the kind or the severity is unknown.
        PartialDataError: a file is missing.
        DamagedDataError: a file is unreadable, or its shape, type or content is another.
    """
    check_kind(kind)
    check_severity(severity)
    path = Path(path)
    images_file, labels_file = path / f"{kind}.npy", path / LABELS_FILE
    images, labels = _map_array(images_file), _map_array(labels_file)
    if images.dtype != np.uint8 or images.shape[1:] != _IMAGE_SHAPE or not len(images):
        raise DamagedDataError(
            f"{images_file}: {images.dtype} of shape {images.shape}, expected uint8 of shape "
            f"(N, 32, 32, 3); it is another file, {_REMEDY}"
        )
    if len(images) % len(SEVERITIES):
        raise DamagedDataError(
            f"{images_file}: {len(images)} images, expected a multiple of {len(SEVERITIES)}, as "
            f"many for each severity; {_REMEDY}"
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise DamagedDataError(
            f"{labels_file}: {labels.dtype} of shape {labels.shape}, expected integers of shape "
            f"({len(images)},), one for each image of {images_file.name}; {_REMEDY}"
        )
    blocks = np.asarray(labels).reshape(len(SEVERITIES), -1)
    if (blocks != blocks[0]).any():
        raise DamagedDataError(
            f"{labels_file}: the labels differ between severities, expected the same test set five "
            f"times; {_REMEDY}"
        )
    count = len(images) // len(SEVERITIES)
    return images[(severity - 1) * count : severity * count], blocks[0].astype(np.int32)


def _map_array(path: Path) -> np.ndarray:
    """Maps a `.npy` file into memory, without unpickling objects."""
    try:
        check_file(path)
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise PartialDataError(
            f"{path} is missing; expected {path.name} of {path.parent.name}, add it"
        ) from error
    except Exception as error:  # A broken header may raise almost any exception.
        raise DamagedDataError(
            f"{path}: cannot be read as a NumPy file ({error_summary(error)}); {_REMEDY}"
        ) from error
