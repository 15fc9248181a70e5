"""Sets of photographs with boxes by name: imported ones, and official files in the data root."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptive_nets.data.boxes.annotations import BadAnnotationsError, BoxSet, Parsed
from adaptive_nets.data.boxes.coco import find_coco, read_coco
from adaptive_nets.data.boxes.index import FOLDER, has_index, imported_names, read_index
from adaptive_nets.data.boxes.voc import find_voc, read_voc
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError
from adaptive_nets.data.folders import data_root
from adaptive_nets.runtime.errors import UserError, did_you_mean

LAYOUTS = {
    "coco": "annotations/instances_*.json and the images in a folder or zip archive beside it",
    "voc": "Annotations/*.xml, JPEGImages and ImageSets/Main/*.txt",
}
"""Layouts of sets with boxes, and their files."""
SOURCES = ("auto", "import", "files")


def load_boxes(name: str, *, root: str | Path | None = None, source: str = "auto") -> BoxSet:
    """Loads the annotations of a set; its photographs stay on disk.

    Args:
        name: name in the catalogue, such as ``"coco"`` or ``"bccd"``, or of an imported set.
        root: data root, see `adaptive_nets.data.data_root`.
        source: ``"import"`` (made known by `adaptive-nets data import`), ``"files"`` (the official
            files in the data root), or ``"auto"``, the first of these that is there.

    Returns:
        The set.

    Raises:
        UserError: the name is unknown, or the set is absent, partial or damaged.
    """
    folder = data_root(root)
    if source not in SOURCES:
        raise UserError(f"data source {source!r} is unknown; {did_you_mean(str(source), SOURCES)}")
    info = CATALOGUE.get(name)
    if info is None or not info.box_form:
        known = known_sets(folder)
        if name not in known:
            fault = "is unknown" if info is None else "has no boxes"
            raise UserError(f"data set {name!r} {fault}; {did_you_mean(str(name), known)}")
    if source != "files" and has_index(folder, name):
        return read_index(folder, name)[0]
    place = find_files(info, folder) if info is not None and source != "import" else None
    if info is None or place is None:
        raise AbsentDataError(absent_message(name, info, folder))
    parsed = parse_files(info, place)
    if parsed.problems:
        raise BadAnnotationsError(parsed.problems)
    return as_set(parsed, info, place)


def known_sets(root: Path) -> list[str]:
    """Returns the names of the catalogue's sets with boxes and of the imported ones."""
    names = [info.name for info in CATALOGUE.values() if info.box_form]
    return [*names, *(name for name in imported_names(root) if name not in CATALOGUE)]


def find_files(info: DatasetInfo, root: Path) -> Path | None:
    """Returns the folder below the data root that holds a set's official files, or None.

    Raises:
        UserError: a folder holds several sets, or cannot be read.
    """
    for name in info.folders:
        place = root / name
        if find_coco(place) if info.box_form == "coco" else find_voc(place):
            return place
    return None


def parse_files(info: DatasetInfo, folder: Path, *, class_names: Sequence[str] = ()) -> Parsed:
    """Reads the annotations of official files; what is wrong with them is in `Parsed.problems`.

    Args:
        info: entry of the set.
        folder: folder of the files.
        class_names: names of the classes by label; those of the files if empty.

    Raises:
        AbsentDataError: the folder has no annotations.
        UserError: a file is damaged, or the classes differ from those given or known.
    """
    if info.box_form == "coco":
        if files := find_coco(folder):
            return read_coco(files, class_names)
    elif found := find_voc(folder):
        return read_voc(found, class_names, known=info.class_names)
    raise AbsentDataError(
        f"{info.name}: {folder} has no annotations; expected {LAYOUTS[info.box_form]} there"
    )


def as_set(parsed: Parsed, info: DatasetInfo, folder: Path) -> BoxSet:
    """Returns the set of parsed official files."""
    return BoxSet(
        info.name,
        parsed.class_names,
        parsed.splits,
        str(folder),
        "files",
        info.box_form,
        dict(parsed.left_out),
    )


def absent_message(name: str, info: DatasetInfo | None, root: Path) -> str:
    """Returns the one-line error message of an absent set, with its remedy."""
    places, remedy = [root / FOLDER / name], ""
    if info is not None:
        places += [root / folder for folder in info.folders[:1]]
        remedy = (
            f"; run `adaptive-nets data import {name} PATH` with the folder that holds "
            f"{LAYOUTS[info.box_form]}"
        )
    return f"{name}: nothing found in {' or '.join(map(str, places))}{remedy}"
