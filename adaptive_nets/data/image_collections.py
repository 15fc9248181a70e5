"""Listings of image collections: a folder per class, or ImageNet's archives.

Archives are not unpacked. A file in an archive, also in a nested one, is a byte range of the outer
archive.
"""

from __future__ import annotations

import functools
import os
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, list_names
from adaptive_nets.data.image_archives import list_archive
from adaptive_nets.data.image_classes import LABELS, check_class, read_labels
from adaptive_nets.data.image_files import HIDDEN, SUFFIXES, ending, is_image
from adaptive_nets.data.image_locations import ImageFile

# Part -> folder names in order of preference.
PARTS = {"train": ("train", "training"), "validation": ("val", "validation", "test")}
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
EMPTY = "class folders without images"

type Progress = Callable[[str, int, int], None]


def find_parts(
    folder: Path, report: Progress, skipped: Counter[str] | None = None
) -> dict[str, list[ImageFile]]:
    """Lists the images of a collection.

    Args:
        folder: folder with ``train`` and ``val``, each with a folder per class; or with the two
            archives of ImageNet; or with class folders, or images and a file of labels, which form
            the single part ``train``. Folders in class folders are searched too. Names that begin
            with a dot are passed over.
        report: called with the progress.
        skipped: counts what is passed over, by reason.

    Returns:
        Part, ``"train"`` or ``"validation"`` -> images ordered by name.

    Raises:
        AbsentDataError: there are no images.
        DamagedDataError: a folder, file or archive is damaged or cannot be read.
        UserError: the class of an image is unknown.
    """
    skipped = Counter() if skipped is None else skipped
    here = list_names(folder)
    found: dict[str, list[ImageFile]] = {}
    try:
        for part, names in PARTS.items():
            inside = next((folder / name for name in names if (folder / name).is_dir()), None)
            if inside is not None:
                found[part] = _list_folder(inside, report, skipped)
            elif ARCHIVES[part] in here:
                flat = PARTS["validation"]
                path = folder / ARCHIVES[part]
                found[part] = list_archive(path, flat=flat, skipped=skipped, report=report)
        if not found:
            found["train"] = _list_folder(folder, report, skipped)
    except OSError as error:
        raise DamagedDataError(
            f"{error.filename or folder} cannot be read: {error_summary(error)}; expected folders "
            "and images that you may read"
        ) from error
    for part, images in found.items():
        if not images:
            raise AbsentDataError(
                f"no {', '.join(SUFFIXES)} file for the part {part} in {folder}; expected train/ "
                f"and val/ with a folder for each class, or {' and '.join(ARCHIVES.values())}"
            )
    return {
        part: sorted(images, key=lambda i: (i.class_name, i.name)) for part, images in found.items()
    }


def _list_folder(folder: Path, report: Progress, skipped: Counter[str]) -> list[ImageFile]:
    """Lists the images of class folders, or of one folder with a file of labels."""
    images: list[ImageFile] = []
    flat: list[ImageFile] = []
    classes = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            skipped[HIDDEN] += 1
        elif path.is_dir():
            classes.append(path)
        elif path.name not in LABELS:
            flat += _image_at(path, folder, "", skipped)
    for number, inside in enumerate(classes):
        report(f"listing {folder.name}", number, len(classes))
        found = _list_class(inside, check_class(inside.name, str(folder)), skipped)
        skipped[EMPTY] += not found
        images += found
    if flat:
        class_of = read_labels(folder, is_image=is_image)
        images += [
            ImageFile(image.path, 0, image.size, image.name, class_of(image.name)) for image in flat
        ]
    return images


def _list_class(folder: Path, class_name: str, skipped: Counter[str]) -> list[ImageFile]:
    """Lists the images of a class, also those in folders below its own."""
    images: list[ImageFile] = []

    def refuse(error: OSError) -> None:
        raise error

    # Links to folders below are not followed, since they may lead in a circle.
    for at, folders, names in os.walk(folder, onerror=refuse):
        skipped[HIDDEN] += sum(name.startswith(".") for name in (*folders, *names))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        skipped["links to folders"] += sum(os.path.islink(os.path.join(at, n)) for n in folders)
        for name in sorted(names):
            if not name.startswith("."):
                images += _image_at(Path(at) / name, folder, class_name, skipped)
    return images


def _image_at(path: Path, folder: Path, class_name: str, skipped: Counter[str]) -> list[ImageFile]:
    """Returns the image at a path; nothing for a file that is not one, which is counted.

    Raises:
        DamagedDataError: the image is a device, FIFO or socket.
        OSError: it does not exist, since a link leads nowhere.
    """
    if not is_image(path.name):
        skipped[ending(path.name)] += 1
        return []
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DamagedDataError(f"{path} is not a regular file; expected an image")
    name = path.relative_to(folder).as_posix()
    return [ImageFile(path, 0, status.st_size, name, class_name)]


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns the WordNet id and name of ImageNet's 1000 classes, by label."""
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple((line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines())
