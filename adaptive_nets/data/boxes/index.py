"""Index of an imported set: its annotations, and where each photograph is.

An import writes ROOT/boxes/NAME with ``info.json`` and one ``split-NAME.json`` per split.
Photographs stay in their folders and archives; the index holds their paths and checksums.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from adaptive_nets.data.boxes.annotations import AnnotatedImage, BoxSet
from adaptive_nets.data.boxes.locations import ImageLocation
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, list_names, read_bytes
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically

FOLDER = "boxes"
"""Folder of all indices below the data root."""
INFO = "info.json"
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""Names of imported sets."""
FORMAT = 1
_UNFINISHED = ".importing-"
_STALE = 24 * 3600  # Age in seconds at which the remains of a killed import are deleted.


class IndexInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Header of an index.

    Attributes:
        format: version of the files.
        form: layout that was imported, ``"coco"`` or ``"voc"``.
        source: folder that was imported.
        class_names: names of the classes, by label.
        images: number of images of each split.
        boxes: number of boxes of each split.
        left_out: what the import left out, by reason.
        fingerprint: of the set, see `BoxSet.fingerprint`.
    """

    format: int
    form: str
    source: str
    class_names: tuple[str, ...]
    images: dict[str, int]
    boxes: dict[str, int]
    left_out: dict[str, int]
    fingerprint: str


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One image: location, size, and flat lists of its boxes."""

    number: int
    name: str
    path: int
    size: int
    offset: int
    packed: int
    deflated: bool
    sha256: str
    height: int
    width: int
    boxes: list[float]
    labels: list[int]
    crowd: list[bool]
    area: list[float]


class _Split(msgspec.Struct, forbid_unknown_fields=True):
    paths: list[str]  # Relative ones are below the data root.
    images: list[_Row]


def write_index(root: Path, found: BoxSet, digests: Mapping[str, str], *, source: Path) -> Path:
    """Writes ROOT/boxes/NAME; an existing index is replaced at once, when the new one is whole.

    Args:
        root: data root; created if missing.
        found: the set.
        digests: sha256, hex, by `ImageLocation.where`.
        source: folder that was imported.

    Returns:
        Folder of the index.

    Raises:
        UserError: it cannot be written.
    """
    parent = root / FOLDER
    target = parent / found.name
    work = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{found.name}-", dir=parent))
        new = work / "new"
        new.mkdir()
        for name, images in found.splits.items():
            content = _pack(images, digests, root)
            write_bytes_atomically(new / _split_file(name), msgspec.json.encode(content))
        info = IndexInfo(
            FORMAT,
            found.form,
            str(source),
            found.class_names,
            found.counts(),
            {name: sum(len(i.boxes) for i in images) for name, images in found.splits.items()},
            dict(found.left_out),
            found.fingerprint,
        )
        text = msgspec.json.format(msgspec.json.encode(info), indent=1)
        write_bytes_atomically(new / INFO, text + b"\n")
        if target.exists():
            os.rename(target, work / "replaced")
        os.rename(new, target)
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(
            f"{found.name} cannot be written to {parent}: {error_summary(error)}; nothing was "
            "kept, free some space, get permission to write there or name another data root"
        ) from error
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return target


def _pack(images: tuple[AnnotatedImage, ...], digests: Mapping[str, str], root: Path) -> _Split:
    base = os.path.abspath(root) + os.sep
    paths: dict[str, int] = {}
    rows = []
    for image in images:
        file = image.file
        folder = file.path.removesuffix(file.name) if file.offset < 0 else file.path
        rows.append(
            _Row(
                image.number,
                file.name,
                paths.setdefault(folder, len(paths)),
                file.size,
                file.offset,
                file.packed,
                file.deflated,
                digests.get(file.where, ""),
                image.height,
                image.width,
                image.boxes.ravel().tolist(),
                image.labels.tolist(),
                image.crowd.tolist(),
                image.area.tolist(),
            )
        )
    return _Split([os.path.abspath(path).removeprefix(base) for path in paths], rows)


def _split_file(split: str) -> str:
    return f"split-{split}.json"


def imported_names(root: Path) -> list[str]:
    """Lists the sets that were imported into a data root.

    Raises:
        DamagedDataError: the folder cannot be read.
    """
    names = sorted(list_names(root / FOLDER))
    return [name for name in names if NAME.fullmatch(name) and has_index(root, name)]


def has_index(root: Path, name: str) -> bool:
    """Returns whether a set was imported into a data root."""
    return (root / FOLDER / name / INFO).exists()


def read_info(root: Path, name: str) -> IndexInfo:
    """Reads the header of an index.

    Raises:
        DamagedDataError: it is missing or damaged.
    """
    folder = root / FOLDER / name
    info = _decode(folder / INFO, IndexInfo, name)
    if info.format != FORMAT:
        raise DamagedDataError(
            f"{folder / INFO} has the format {info.format}, expected {FORMAT}; {_remedy(folder)}"
        )
    return info


def read_index(root: Path, name: str) -> tuple[BoxSet, dict[str, str]]:
    """Reads an imported set.

    Args:
        root: data root.
        name: name of the set.

    Returns:
        The set, and the sha256, hex, of each photograph by `ImageLocation.where`.

    Raises:
        DamagedDataError: a file of the index is missing or damaged.
    """
    folder = root / FOLDER / name
    info = read_info(root, name)
    splits, digests = {}, {}
    for split, count in info.images.items():
        path = folder / _split_file(split)
        content = _decode(path, _Split, name)
        try:
            images = tuple(_unpack(row, content.paths, root) for row in content.images)
        except (ValueError, IndexError, OverflowError) as error:
            raise DamagedDataError(
                f"{path}: damaged ({error_summary(error)}); {_remedy(folder)}"
            ) from error
        if len(images) != count:
            raise DamagedDataError(
                f"{path}: damaged, {len(images)} images, expected {count} by {INFO}; "
                f"{_remedy(folder)}"
            )
        splits[split] = images
        for row, image in zip(content.images, images, strict=True):
            digests[image.file.where] = row.sha256
    found = BoxSet(name, info.class_names, splits, str(folder), "import", info.form, info.left_out)
    if found.fingerprint != info.fingerprint:
        raise DamagedDataError(
            f"{folder}: damaged, its content has another checksum than {INFO} gives; "
            f"{_remedy(folder)}"
        )
    return found, digests


def _unpack(row: _Row, paths: list[str], root: Path) -> AnnotatedImage:
    path = os.path.abspath(root / paths[row.path])
    if row.offset < 0:
        path = os.path.join(path, row.name)
    return AnnotatedImage(
        row.number,
        ImageLocation(path, row.name, row.size, row.offset, row.packed, row.deflated),
        row.height,
        row.width,
        np.array(row.boxes, np.float32).reshape(len(row.labels), 4),
        np.array(row.labels, np.int32),
        np.array(row.crowd, bool),
        np.array(row.area, np.float32),
    )


def _decode[T](path: Path, kind: type[T], name: str) -> T:
    folder = path.parent
    try:
        return msgspec.json.decode(read_bytes(path), type=kind)
    except AbsentDataError as error:
        raise DamagedDataError(f"{path} is missing; {_remedy(folder)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedDataError(
            f"{path}: damaged index of {name} ({error_summary(error)}); {_remedy(folder)}"
        ) from error


def _remedy(folder: Path) -> str:
    return f"delete {folder} and import the set again"


def remove_stale(root: Path) -> None:
    """Removes the remains of killed imports, but none young enough to be running."""
    for remains in (root / FOLDER).glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - remains.stat().st_mtime > _STALE:
                shutil.rmtree(remains, ignore_errors=True)
