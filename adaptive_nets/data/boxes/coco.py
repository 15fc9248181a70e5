"""Reader of COCO's annotations: instances_*.json beside folders or zip archives of images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from adaptive_nets.data.boxes.annotations import ZERO, BoxList, Parsed, check_class_names
from adaptive_nets.data.boxes.locations import FolderStore, ImageLocation, ImageStore, ZipStore
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, PartialDataError
from adaptive_nets.data.folders import error_summary, list_names, read_bytes
from adaptive_nets.runtime.errors import UserError

_ALIASES = {
    "": "train", "annotations": "train", "training": "train", "valid": "val", "validation": "val",
    "testing": "test",
}  # fmt: skip
_PREFIX = "instances_"
_INT32 = 2**31


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int | None = None
    iscrowd: int | bool = 0
    area: float | None = None


class _Category(msgspec.Struct):
    id: int
    name: str


class _Content(msgspec.Struct):
    # Unknown fields, such as the segments, are skipped without being built.
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True)
class CocoFile:
    """Annotation file of one split.

    Attributes:
        split: name of the split, such as ``"train"``.
        path: the JSON file.
        base: folder of the set.
    """

    split: str
    path: Path
    base: Path

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders and archives that may hold the images, in search order."""
        stem = self.path.stem.removeprefix(_PREFIX)
        names = [*dict.fromkeys((stem, f"images/{stem}", self.split, f"images/{self.split}"))]
        return (
            *(self.base / form for name in names for form in (name, f"{name}.zip")),
            self.base / "images",
            self.base / "images.zip",
            self.base,
            self.path.parent,
        )


def find_coco(folder: Path) -> list[CocoFile]:
    """Finds the annotation files of a set.

    These are ``instances_*.json`` in the folder or in its ``annotations``; without one, every JSON
    file there. ``instances_train2017.json`` is of the split ``"train"``, and ``annotations.json``
    too.

    Args:
        folder: folder of the set.

    Returns:
        Files by split in the order train, val, test, others; empty if there are none.

    Raises:
        DamagedDataError: the folder cannot be read.
        UserError: two files are of the same split.
    """
    for inside in (folder / "annotations", folder):
        names = sorted(name for name in list_names(inside) if name.endswith(".json"))
        chosen = [name for name in names if name.startswith(_PREFIX)] or names
        if chosen:
            break
    else:
        return []
    files: dict[str, CocoFile] = {}
    for name in chosen:
        file = CocoFile(_split_name(name), inside / name, folder)
        other = files.setdefault(file.split, file)
        if other is not file:
            raise UserError(
                f"{inside} has two annotation files of the part {file.split}, {other.path.name} "
                f"and {name}; expected one, move the other away"
            )
    usual = ("train", "val", "test")
    return sorted(files.values(), key=lambda f: (*(f.split != name for name in usual), f.split))


def _split_name(name: str) -> str:
    stem = name.removesuffix(".json").removeprefix(_PREFIX).lower()
    stem = re.sub(r"[_-]?\d{4}$", "", stem)
    return _ALIASES.get(stem, stem)


def read_coco(files: Sequence[CocoFile], class_names: Sequence[str] = ()) -> Parsed:
    """Reads annotation files of one set; images are located, not read.

    Category ids may be sparse: labels are 0, 1, … in the order of the ids, or of `class_names`.

    Args:
        files: one file for each split, see `find_coco`.
        class_names: names of the classes by label; those of the files if empty.

    Raises:
        AbsentDataError: there are no files.
        DamagedDataError: a file cannot be read or is not COCO's.
        PartialDataError: there are no images for a file.
        UserError: files or `class_names` have different classes.
    """
    if not files:
        raise AbsentDataError("no annotation file of COCO's form; expected instances_*.json")
    contents = [(file, _read_content(file.path)) for file in files]
    first, content = contents[0]
    categories = _categories(content, first.path)
    for file, content in contents[1:]:
        if (others := _categories(content, file.path)) != categories:
            different = sorted(set(others.items()) ^ set(categories.items()))[0]
            raise UserError(
                f"{file.path} has other categories than {first.path}: {different[1]!r} with id "
                f"{different[0]} is in one of them only; expected the same"
            )
    names = tuple(categories.values())
    if class_names:
        strange = sorted(set(names) - set(class_names))
        if strange:
            raise UserError(
                f"{first.path} has the category {strange[0]!r}; expected the classes "
                f"{', '.join(class_names)}"
            )
        names = tuple(class_names)
    label_of = {number: names.index(name) for number, name in categories.items()}
    parsed = Parsed(names, {}, [], Counter())
    for file, content in contents:
        _add_split(parsed, file, content, label_of)
    return parsed


def _read_content(path: Path) -> _Content:
    try:
        return msgspec.json.decode(read_bytes(path), type=_Content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedDataError(
            f"{path} is not an annotation file of COCO's form ({error_summary(error)}); expected "
            "JSON with images, annotations and categories"
        ) from error


def _categories(content: _Content, path: Path) -> dict[int, str]:
    """Returns the names by id, in the order of the ids."""
    ordered = sorted(content.categories, key=lambda category: category.id)
    found = {category.id: category.name for category in ordered}
    if len(found) != len(ordered):
        raise UserError(f"{path} has two categories of the same id; expected different ids")
    check_class_names([category.name for category in ordered], str(path))
    return found


def _add_split(parsed: Parsed, file: CocoFile, content: _Content, label_of: dict[int, int]) -> None:
    problems = parsed.problems
    images: dict[int, tuple[ImageLocation, BoxList, _Image]] = {}
    seen: set[int] = set()
    store = _choose_store(file, content)
    for place, image in enumerate(content.images):
        what = f"{file.path}: image {place} ({image.file_name!r}, id {image.id})"
        if image.id in seen or not -_INT32 <= image.id < _INT32:
            fault = (
                "has the id of another image" if image.id in seen else "has an id beyond 32 bits"
            )
            problems.append(f"{what} {fault}; expected an id of its own in 32 bits")
            continue
        seen.add(image.id)
        if image.width < 1 or image.height < 1:
            problems.append(
                f"{what} has {image.width} x {image.height} pixels; expected a width and a height "
                "of at least 1"
            )
            continue
        found = store.find(image.file_name)
        if found is None:
            problems.append(f"{what} is not in {store.location}; expected its file there")
            continue
        images[image.id] = (found, BoxList(image.height, image.width), image)
    for line in _add_boxes(parsed.left_out, content.annotations, images, seen, label_of):
        problems.append(f"{file.path}: {line}")
    parsed.splits[file.split] = tuple(
        boxes.image(number, found) for number, (found, boxes, _) in images.items()
    )


def _add_boxes(
    left_out: Counter[str],
    annotations: Sequence[_Annotation],
    images: dict[int, tuple[ImageLocation, BoxList, _Image]],
    seen: set[int],
    label_of: dict[int, int],
) -> Iterator[str]:
    """Adds boxes to their images; yields a line for each that is wrong."""
    for place, annotation in enumerate(annotations):
        what = f"annotation {place}" + ("" if annotation.id is None else f" (id {annotation.id})")
        if annotation.image_id not in images:
            # One line is enough for an image without a file and all its boxes.
            if annotation.image_id not in seen:
                yield (
                    f"{what} is of image {annotation.image_id}, which is not among its images; "
                    "expected an image for every annotation"
                )
            continue
        _, boxes, image = images[annotation.image_id]
        if annotation.category_id not in label_of:
            ids = sorted(label_of)
            yield (
                f"{what} has the category {annotation.category_id}; expected one of its "
                f"{len(ids)} categories, {ids[0]} to {ids[-1]}"
            )
            continue
        x, y, width, height = annotation.bbox
        fault = boxes.add(
            (y, x, y + height, x + width),
            label_of[annotation.category_id],
            crowd=bool(annotation.iscrowd),
            area=annotation.area,
        )
        if fault == ZERO:
            left_out[ZERO] += 1
        elif fault:
            yield (
                f"{what}: the box x {x:g}, y {y:g}, width {width:g}, height {height:g} of "
                f"{image.file_name!r} {fault}; expected a box within {image.width} x "
                f"{image.height} pixels"
            )


def _choose_store(file: CocoFile, content: _Content) -> ImageStore:
    """Returns the folder or archive with the images: the first that holds one of the first few."""
    probes = [image.file_name for image in content.images[:20]]
    there: list[ImageStore] = []
    for place in file.places:
        if place.is_dir():
            store: ImageStore = FolderStore(place)
        elif place.suffix == ".zip" and place.exists():
            store = ZipStore(place)
        else:
            continue
        if any(store.find(name) is not None for name in probes):
            return store
        # These two are there in any case.
        if place not in (file.base, file.path.parent):
            there.append(store)
    if there:
        return there[0]
    if not probes:
        return FolderStore(file.path.parent)
    expected = " or ".join(str(place) for place in dict.fromkeys(file.places[:2]))
    raise PartialDataError(f"{file.path} has no images beside it; expected them in {expected}")
