"""State of the sets with boxes in a data root, for `adaptive-nets data list` and `check`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adaptive_nets.data.boxes.annotations import AnnotatedImage, BadAnnotationsError, BoxSet
from adaptive_nets.data.boxes.coco import find_coco
from adaptive_nets.data.boxes.importing import check_images, describe, own_set
from adaptive_nets.data.boxes.index import FOLDER, has_index, imported_names, read_index, read_info
from adaptive_nets.data.boxes.loading import absent_message, as_set, find_files, parse_files
from adaptive_nets.data.boxes.voc import find_voc
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import DamagedDataError, PartialDataError
from adaptive_nets.runtime.errors import UserError

_THREADS = 4

type Fields = dict[str, Any]
"""Attributes of a `check.Finding`."""


def own_sets(root: Path) -> list[DatasetInfo]:
    """Returns the entries of the imported sets that are not in the catalogue.

    Raises:
        UserError: the folder of the imported sets cannot be read.
    """
    found = []
    for name in imported_names(root):
        if name in CATALOGUE:
            continue
        try:
            form = read_info(root, name).form
            found.append(own_set(name, form if form == "coco" else "voc"))
        except DamagedDataError:  # `inspect` says so.
            found.append(own_set(name, "voc"))
    return found


def inspect(info: DatasetInfo, root: Path, *, read: bool) -> list[Fields]:
    """Examines every copy of a set: the imported one, and the official files in the data root.

    Args:
        info: entry of the set.
        root: data root.
        read: whether every photograph is read: those of an import are compared with their
            checksums, others are decoded.

    Returns:
        Attributes of one finding for each copy, or of one for an absent set.
    """
    fields = []
    for source, examine in (("import", _imported), ("files", _official)):
        try:
            found = examine(info, root, read)
        except UserError as error:
            found = {
                "state": "partial" if isinstance(error, PartialDataError) else "damaged",
                "message": str(error),
                "location": str(root / FOLDER / info.name) if source == "import" else None,
            }
        if found is not None:
            fields.append({"source": source, "form": info.box_form, **found})
    if not fields:
        fields.append({"state": "absent", "message": absent_message(info.name, info, root)})
    return [{"name": info.name, "title": info.title, **found} for found in fields]


def _imported(info: DatasetInfo, root: Path, read: bool) -> Fields | None:
    if not has_index(root, info.name):
        return None
    if not read:
        header = read_info(root, info.name)
        sizes = " + ".join(f"{count:,} {split}" for split, count in header.images.items())
        boxes, classes = sum(header.boxes.values()), len(header.class_names)
        return {
            "state": "ok",
            "message": f"{sizes}, {boxes:,} boxes of {classes} classes, not read",
            "location": str(root / FOLDER / info.name),
            "counts": header.images,
            "complete": _is_complete(info, header.images),
        }
    found, digests = read_index(root, info.name)
    _compare_digests(found, digests)
    return _described(info, found, "checked by the checksums of the import")


def _official(info: DatasetInfo, root: Path, read: bool) -> Fields | None:
    place = find_files(info, root)
    if place is None:
        return None
    if not read:
        parts, counts = _listed(info, place)
        return {
            "state": "ok",
            "message": f"{parts}, not read",
            "location": str(place),
            "counts": counts,
            "complete": _is_complete(info, counts),
        }
    parsed = parse_files(info, place)
    bad, _ = check_images(parsed.splits, lambda what, done, total: None)
    if problems := [*parsed.problems, *bad.values()]:
        raise BadAnnotationsError(problems)
    return _described(info, as_set(parsed, info, place), "every image decoded")


def _listed(info: DatasetInfo, place: Path) -> tuple[str, dict[str, int]]:
    """Describes the parts of official files; COCO's are counted only when they are read."""
    if info.box_form == "coco":
        names = [file.split for file in find_coco(place)]
        return f"annotations of {' and '.join(names)}", {}
    found = find_voc(place)
    counts = {name: len(members) for name, members in found.splits.items()} if found else {}
    return " + ".join(f"{count:,} {name}" for name, count in counts.items()), counts


def _described(info: DatasetInfo, found: BoxSet, how: str) -> Fields:
    counts = found.counts()
    complete = _is_complete(info, counts)
    official = " + ".join(f"{count:,} {split}" for split, count in info.splits.items())
    remark = f"; the official set has {official}" if official and not complete else ""
    return {
        "state": "ok",
        "message": f"{describe(found)}, {how}{remark}",
        "location": found.location,
        "counts": counts,
        "complete": complete,
        "class_counts": {split: found.class_counts(split) for split in counts},
        "fingerprint": found.fingerprint,
    }


def _is_complete(info: DatasetInfo, counts: Mapping[str, int]) -> bool:
    return bool(info.splits) and dict(counts) == dict(info.splits)


def _compare_digests(found: BoxSet, digests: Mapping[str, str]) -> None:
    def compare(image: AnnotatedImage) -> None:
        digest = hashlib.sha256(image.file.read()).hexdigest()
        if digest != digests[image.file.where]:
            raise DamagedDataError(
                f"{image.file.where}: sha256 is {digest}, expected {digests[image.file.where]}; it "
                "has changed since it was imported, put it back or import the data set again"
            )

    with ThreadPoolExecutor(_THREADS) as pool:
        for images in found.splits.values():
            for _ in pool.map(compare, images):
                pass
