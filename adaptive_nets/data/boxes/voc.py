"""Reader of Pascal VOC's layout: Annotations/*.xml, JPEGImages, ImageSets/Main/*.txt."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptive_nets.data.boxes.annotations import (
    NEGATIVE,
    ZERO,
    AnnotatedImage,
    BoxList,
    Parsed,
    check_class_names,
)
from adaptive_nets.data.boxes.locations import FolderStore, ImageLocation
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, PartialDataError
from adaptive_nets.data.folders import error_summary, list_names, read_bytes
from adaptive_nets.data.image_files import is_image
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import TEXT_LIMIT

ANNOTATIONS, IMAGES, LISTS = "Annotations", "JPEGImages", "ImageSets/Main"
_SPLITS = ("train", "val", "test")
_XML_LIMIT = 16 << 20
_YES = ("1", "true", "yes")


@dataclass(frozen=True)
class VocFolder:
    """Set in Pascal VOC's layout.

    Attributes:
        folder: folder with `ANNOTATIONS` and `IMAGES`.
        splits: file names without suffix, by split.
    """

    folder: Path
    splits: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class _Object:
    place: int
    name: str
    corners: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax
    difficult: bool


def find_voc(folder: Path) -> VocFolder | None:
    """Finds a set and its lists of images.

    Splits are the lists train, val and test; without any of them, trainval; without lists, all
    annotations are of the split ``"train"``. Lists of single classes are passed over.

    Args:
        folder: folder of the set, or one that contains it, such as VOCdevkit.

    Returns:
        The set; None if there is none.

    Raises:
        DamagedDataError: a folder or list cannot be read.
        PartialDataError: a list is empty.
        UserError: several sets are there.
    """
    inside = [folder / name for name in sorted(list_names(folder)) if name.startswith("VOC")]
    inside += [path / name for path in inside for name in sorted(list_names(path))]
    found = [path for path in (folder, *inside) if _is_voc(path)]
    if not found:
        return None
    if len(found) > 1:
        raise UserError(
            f"{folder} has the sets {' and '.join(str(path) for path in found)}; expected the "
            "folder of one of them"
        )
    lists = found[0] / LISTS
    there = [name for name in _SPLITS if f"{name}.txt" in list_names(lists)]
    if not there and "trainval.txt" in list_names(lists):
        there = ["trainval"]
    if there:
        splits = {name: _read_list(lists / f"{name}.txt") for name in there}
    else:
        names = sorted(list_names(found[0] / ANNOTATIONS))
        splits = {"train": tuple(n.removesuffix(".xml") for n in names if n.endswith(".xml"))}
    return VocFolder(found[0], splits)


def _is_voc(folder: Path) -> bool:
    return {ANNOTATIONS, IMAGES} <= list_names(folder)


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        lines = read_bytes(path, limit=TEXT_LIMIT).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DamagedDataError(f"{path} is not UTF-8 at byte {error.start}") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise PartialDataError(f"{path} is empty; expected the name of an image per line")
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise DamagedDataError(f"{path} names {twice!r} twice; expected every image once")
    return names


def read_voc(
    found: VocFolder, class_names: Sequence[str] = (), *, known: Sequence[str] = ()
) -> Parsed:
    """Reads all annotations of a set; images are located, not read.

    Coordinates in the files are those of pixels, counted from 1, both ends inside the box: xmin,
    ymin, xmax, ymax become (ymin - 1, xmin - 1, ymax, xmax). A difficult object is an ignore
    region. The number of an image is its place among all names in alphabetical order.

    Args:
        found: the set.
        class_names: names of the classes by label; any other class is wrong.
        known: without `class_names`, the classes if all of those in the files are among them;
            else they are those in the files, sorted.

    Raises:
        AbsentDataError: there are no annotations.
        UserError: the files have no classes, or some of `known` and some others.
    """
    names = sorted({name for split in found.splits.values() for name in split})
    if not names:
        raise AbsentDataError(f"{found.folder / ANNOTATIONS} is empty; expected XML files")
    problems: list[str] = []
    left_out: Counter[str] = Counter()
    store = FolderStore(found.folder / IMAGES)
    stems: dict[str, str] = {}
    for file in sorted(list_names(store.location), reverse=True):
        if is_image(file):
            stems[file.rsplit(".", 1)[0]] = file
    read: dict[str, tuple[ImageLocation, int, int, list[_Object]]] = {}
    for name in names:
        path = found.folder / ANNOTATIONS / f"{name}.xml"
        try:
            read[name] = _read_annotation(path, name, store, stems, problems)
        except (DamagedDataError, AbsentDataError) as error:
            problems.append(str(error))
    classes = _choose_classes(
        {o.name for *_, objects in read.values() for o in objects}, class_names, known, found.folder
    )
    label_of = {name: label for label, name in enumerate(classes)}
    images: dict[str, AnnotatedImage] = {}
    for number, name in enumerate(names):
        if name not in read:
            continue
        location, height, width, objects = read[name]
        boxes = BoxList(height, width)
        for fault in _add_boxes(boxes, objects, label_of, left_out, height, width):
            problems.append(f"{found.folder / ANNOTATIONS / name}.xml: {fault}")
        images[name] = boxes.image(number, location)
    splits = {
        split: tuple(images[name] for name in members if name in images)
        for split, members in found.splits.items()
    }
    return Parsed(classes, splits, problems, left_out)


def _read_annotation(
    path: Path, name: str, store: FolderStore, stems: dict[str, str], problems: list[str]
) -> tuple[ImageLocation, int, int, list[_Object]]:
    """Returns image, height, width and objects of a file; appends a line for each bad object."""
    try:
        root = ElementTree.fromstring(read_bytes(path, limit=_XML_LIMIT))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DamagedDataError(
            f"{path} is not XML ({error_summary(error)}); expected an annotation of Pascal VOC"
        ) from error
    except AbsentDataError as error:
        raise AbsentDataError(
            f"{path} is missing; expected the annotation of the listed image {name}"
        ) from error
    file = stems.get(name) or (root.findtext("filename") or "").strip()
    location = store.find(file)
    if location is None:
        raise DamagedDataError(
            f"{path} is the annotation of {name}, which has no image in {store.location}; expected "
            f"{file or f'{name}.jpg'} there"
        )
    size = [_number(root, f"size/{side}") for side in ("height", "width")]
    if not all(side is not None and side >= 1 and side == int(side) for side in size):
        raise DamagedDataError(
            f"{path} has the size {root.findtext('size/width')!r} x "
            f"{root.findtext('size/height')!r}; expected the width and height of its image, pixels"
        )
    height, width = (int(side or 0) for side in size)
    objects = []
    for place, element in enumerate(root.findall("object"), 1):
        corners = [_number(element, f"bndbox/{k}") for k in ("xmin", "ymin", "xmax", "ymax")]
        label = (element.findtext("name") or "").strip()
        if not label or any(corner is None for corner in corners):
            problems.append(
                f"{path}: object {place} lacks its name or a number of its bndbox; expected name, "
                "xmin, ymin, xmax and ymax"
            )
            continue
        x1, y1, x2, y2 = (float(corner or 0) for corner in corners)
        difficult = (element.findtext("difficult") or "").strip().lower() in _YES
        objects.append(_Object(place, label, (x1, y1, x2, y2), difficult))
    return location, height, width, objects


def _number(element: ElementTree.Element, path: str) -> float | None:
    try:
        return float(element.findtext(path) or "")
    except ValueError:
        return None


def _add_boxes(
    boxes: BoxList,
    objects: Sequence[_Object],
    label_of: dict[str, int],
    left_out: Counter[str],
    height: int,
    width: int,
) -> Iterator[str]:
    """Adds the objects of an image; yields a line for each that is wrong."""
    for found in objects:
        what = f"object {found.place} ({found.name!r})"
        if found.name not in label_of:
            yield f"{what} has an unknown class; expected {', '.join(label_of)}"
            continue
        x1, y1, x2, y2 = found.corners
        # One pixel has equal ends, so the conversion would hide ends in the wrong order by one.
        fault = NEGATIVE
        if not (x2 < x1 or y2 < y1):
            box = (y1 - 1, x1 - 1, y2, x2)
            fault = boxes.add(box, label_of[found.name], crowd=found.difficult)
        if fault == ZERO:
            left_out[ZERO] += 1
        elif fault:
            yield (
                f"{what}: the box xmin {x1:g}, ymin {y1:g}, xmax {x2:g}, ymax {y2:g} {fault}; "
                f"expected pixels counted from 1 within {width} x {height}"
            )


def _choose_classes(
    shown: set[str], given: Sequence[str], known: Sequence[str], folder: Path
) -> tuple[str, ...]:
    if given:
        return check_class_names(list(given), "--classes")
    if known and shown <= set(known):
        return tuple(known)
    if shown & set(known):
        raise UserError(
            f"{folder / ANNOTATIONS} has the class {sorted(shown - set(known))[0]!r}; expected "
            f"only {', '.join(known)}, or none of them: name your own with --classes"
        )
    return check_class_names(sorted(shown), str(folder / ANNOTATIONS))
