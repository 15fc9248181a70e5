"""Listings of image collections: a folder per class, or ImageNet's archives.

Archives are not unpacked. A file in an archive, also in a nested one, is a byte range of the outer
archive.
"""

from __future__ import annotations

import csv
import functools
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, list_names
from adaptive_nets.runtime.errors import UserError

SUFFIXES = (".jpeg", ".jpg", ".png")
# Part -> folder names in order of preference.
PARTS = {"train": ("train", "training"), "validation": ("val", "validation", "test")}
ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
# Files that hold the classes of images in a part without class folders.
LABELS = ("labels.csv", "LOC_val_solution.csv", "val_labels.txt", "val.txt")

type Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ImageFile:
    """Location of one image.

    Attributes:
        path: image file or archive.
        offset: position of the image's first byte.
        size: size of the image in bytes.
        name: human-readable name of the image.
        class_name: class of the image.
    """

    path: Path
    offset: int
    size: int
    name: str
    class_name: str

    def read(self) -> bytes:
        """Reads the encoded image.

        Raises:
            DamagedDataError: the file cannot be read or has become shorter.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DamagedDataError(f"{self.path} cannot be read: {error_summary(error)}") from error
        if len(content) != self.size:
            raise DamagedDataError(
                f"{self.path}: damaged, {len(content)} bytes of {self.name}, expected {self.size}"
            )
        return content


def find_parts(folder: Path, report: Progress) -> dict[str, list[ImageFile]]:
    """Lists the images of a collection.

    Args:
        folder: folder with ``train`` and ``val``, each with a folder per class; or with the two
            archives of ImageNet; or with class folders, or images and a file of labels, which form
            the single part ``train``.
        report: called with the progress.

    Returns:
        Part, ``"train"`` or ``"validation"`` -> images ordered by name.

    Raises:
        AbsentDataError: there are no images.
        DamagedDataError: an archive is damaged.
        UserError: the class of an image is unknown.
    """
    here = list_names(folder)
    found: dict[str, list[ImageFile]] = {}
    for part, names in PARTS.items():
        inside = next((folder / name for name in names if (folder / name).is_dir()), None)
        if inside is not None:
            found[part] = _list_folder(inside, report)
        elif ARCHIVES[part] in here:
            found[part] = _list_archive(folder / ARCHIVES[part], report)
    if not found:
        found["train"] = _list_folder(folder, report)
    for part, images in found.items():
        if not images:
            raise AbsentDataError(
                f"no {', '.join(SUFFIXES)} file for the part {part} in {folder}; expected train/ "
                f"and val/ with a folder for each class, or {' and '.join(ARCHIVES.values())}"
            )
    return {
        part: sorted(images, key=lambda i: (i.class_name, i.name)) for part, images in found.items()
    }


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _list_folder(folder: Path, report: Progress) -> list[ImageFile]:
    """Lists the images of class folders, or of one folder with a file of labels."""
    images = []
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for number, inside in enumerate(classes):
        report(f"listing {folder.name}", number, len(classes))
        for path in sorted(inside.iterdir()):
            if _is_image(path.name):
                images.append(ImageFile(path, 0, path.stat().st_size, path.name, inside.name))
    flat = [path for path in sorted(folder.iterdir()) if path.is_file() and _is_image(path.name)]
    if flat:
        class_of = _read_labels(folder)
        for path in flat:
            size = path.stat().st_size
            images.append(ImageFile(path, 0, size, path.name, class_of(path.name)))
    return images


def _list_archive(archive: Path, report: Progress) -> list[ImageFile]:
    """Lists the images of an archive of class archives, or of one beside a file of labels."""
    images: list[ImageFile] = []
    total = archive.stat().st_size
    class_of: Callable[[str], str] | None = None
    try:
        for member in _members(archive, 0):
            report(f"listing {archive.name}", member.offset, total)
            name = Path(member.name).name
            if name.endswith(".tar"):
                for image in _members(archive, member.offset_data):
                    if image.isfile() and _is_image(Path(image.name).name):
                        at = member.offset_data + image.offset_data
                        images.append(
                            ImageFile(archive, at, image.size, Path(image.name).name, name[:-4])
                        )
            elif member.isfile() and _is_image(name):
                parent = Path(member.name).parent.name
                if not parent or parent in PARTS["validation"]:
                    class_of = class_of or _read_labels(archive.parent)
                    parent = class_of(name)
                images.append(ImageFile(archive, member.offset_data, member.size, name, parent))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DamagedDataError(f"{archive}: damaged archive ({error_summary(error)})") from error
    return images


def _members(archive: Path, start: int) -> Iterator[tarfile.TarInfo]:
    """Lists the members of the archive at byte `start`; offsets are relative to `start`."""
    with archive.open("rb") as file:
        size = archive.stat().st_size
        with tarfile.open(fileobj=_FileSlice(file, start, size), mode="r:") as tar:  # pyright: ignore
            yield from tar


class _FileSlice:
    """File-like view of a byte range of a file, for `tarfile`."""

    def __init__(self, file, start: int, size: int):
        self._file, self._start, self._size = file, start, size
        file.seek(start)

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0:
            self._file.seek(self._start + position)
        else:
            self._file.seek(position, whence)
        return self.tell()

    def tell(self) -> int:
        return self._file.tell() - self._start


def _read_labels(folder: Path) -> Callable[[str], str]:
    """Returns a function that looks up the class of an image name in the folder's label file."""
    path = next((folder / name for name in LABELS if (folder / name).is_file()), None)
    if path is None:
        raise UserError(
            f"{folder} holds images outside of class folders and no file of labels; expected "
            f"{', '.join(LABELS[:-1])} or {LABELS[-1]} there (a file name and a class per line)"
        )
    rows = list(csv.reader(path.read_text().replace("\t", ",").splitlines()))
    if rows and len(rows[0]) == 1:
        rows = [row[0].split() for row in rows if row]
    class_column = 1
    if rows and not _is_image(rows[0][0]):
        # A heading names the column of the class.
        heading = [name.lower() for name in rows.pop(0)]
        for name in ("wordnet_id", "class", "predictionstring", "label"):
            if name in heading:
                class_column = heading.index(name)
                break
    # Kaggle's label strings also hold boxes, and its image names lack the suffix.
    classes = {
        row[0].rsplit(".", 1)[0]: row[class_column].split()[0]
        for row in rows
        if len(row) > class_column and row[class_column].strip()
    }

    def class_of(name: str) -> str:
        try:
            return classes[name.rsplit(".", 1)[0]]
        except KeyError:
            raise UserError(f"{path} lacks the class of {name}; expected a line for it") from None

    return class_of


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Returns the WordNet id and name of ImageNet's 1000 classes, by label."""
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple((line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines())


def class_labels(images: Sequence[ImageFile]) -> tuple[str, ...]:
    """Returns the class names by label.

    These are ImageNet's 1000 if they contain all classes of the images, else the sorted classes of
    the images.
    """
    official = tuple(wordnet for wordnet, _ in imagenet_classes())
    shown = {image.class_name for image in images}
    return official if shown <= set(official) else tuple(sorted(shown))
