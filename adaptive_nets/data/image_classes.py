"""Classes of a collection of images: from folder names, or from a file of labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.image_locations import ImageFile
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import TEXT_LIMIT, read_file

# Files that hold the classes of images in a part without class folders.
LABELS = ("labels.csv", "LOC_val_solution.csv", "val_labels.txt", "val.txt")
_CLASS_COLUMNS = ("wordnet_id", "class", "predictionstring", "label")


def check_class(name: str, where: str) -> str:
    """Returns a class name that can stand in a list of classes, one a line.

    Raises:
        UserError: the name is empty, not UTF-8, or has line breaks, other control characters, or
            spaces at its ends.
    """
    if name and name.isprintable() and name == name.strip() and name not in (".", ".."):
        return name
    raise UserError(
        f"{where} has the class {name!r}; expected a name of printable characters in UTF-8 without "
        "spaces at its ends, so rename it"
    )


def read_labels(folder: Path, *, is_image: Callable[[str], bool]) -> Callable[[str], str]:
    """Returns a function that looks up the class of an image name in the folder's label file.

    Raises:
        DamagedDataError: the file cannot be read or is not UTF-8.
        UserError: there is no such file, or it gives an image two classes.
    """
    path = next((folder / name for name in LABELS if (folder / name).exists()), None)
    if path is None:
        raise UserError(
            f"{folder} holds images outside of class folders and no file of labels; expected "
            f"{', '.join(LABELS[:-1])} or {LABELS[-1]} there (a file name and a class per line)"
        )
    rows = _read_rows(path)
    column = 1
    if rows and not is_image(rows[0][0]):
        # A heading names the column of the class.
        heading = [name.lower() for name in rows.pop(0)]
        column = next((heading.index(n) for n in _CLASS_COLUMNS if n in heading), column)
    classes: dict[str, str] = {}
    for row in rows:
        if len(row) <= column or not row[column].strip():
            continue
        # Kaggle's label strings also hold boxes, and its image names lack the suffix.
        stem, name = _stem(row[0]), check_class(row[column].split()[0], str(path))
        if classes.setdefault(stem, name) != name:
            raise UserError(
                f"{path} gives {row[0]} the classes {classes[stem]} and {name}; expected one"
            )

    def class_of(name: str) -> str:
        try:
            return classes[_stem(name)]
        except KeyError:
            raise UserError(f"{path} lacks the class of {name}; expected a line for it") from None

    return class_of


def _stem(name: str) -> str:
    return name.strip().rsplit(".", 1)[0]


def _read_rows(path: Path) -> list[list[str]]:
    """Reads the rows of a file of labels, without empty lines."""
    try:
        text = read_file(path, limit=TEXT_LIMIT).decode("utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        rows = [row for row in csv.reader(line.replace("\t", ",") for line in lines) if row]
    except OSError as error:
        raise DamagedDataError(f"{path} cannot be read: {error_summary(error)}") from error
    except UnicodeDecodeError as error:
        raise DamagedDataError(
            f"{path} is not UTF-8 at byte {error.start}; expected UTF-8, a file name and a class "
            "per line"
        ) from error
    except csv.Error as error:
        raise DamagedDataError(
            f"{path}: damaged ({error}); expected a file name and a class per line"
        ) from error
    if rows and len(rows[0]) == 1:
        rows = [row[0].split() for row in rows]
    return rows


def class_labels(
    parts: Mapping[str, Sequence[ImageFile]], official: tuple[str, ...], *, title: str
) -> tuple[str, ...]:
    """Returns the class names by label.

    These are the official ones if they contain all classes of the images, else the sorted classes
    of the training images.

    Args:
        parts: images by part.
        official: class names of the set, by label.
        title: name of the set in messages.

    Raises:
        UserError: some classes are official and others are not, or a class has no training images.
    """
    shown = {part: {image.class_name for image in images} for part, images in parts.items()}
    found = set().union(*shown.values())
    known = set(official)
    if found <= known:
        return official
    others = sorted(found - known)
    if found & known:
        raise UserError(
            f"{len(others)} of {len(found)} classes are not among the {len(official)} of {title}, "
            f"the first is {others[0]!r}; expected only these, or none of them: move its images "
            "away"
        )
    train = shown.get("train", found)
    for part, names in shown.items():
        if missing := sorted(names - train):
            raise UserError(
                f"the class {missing[0]!r} is in the part {part} only; expected every class in the "
                "part train"
            )
    return tuple(sorted(train))
