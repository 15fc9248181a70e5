"""Sets of pictures with human fixations, found in a data root or read from a path."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.fixations.decoding import decode_density, decode_points
from adaptive_nets.data.fixations.layouts import LAYOUTS, PictureFiles, find_layout
from adaptive_nets.data.fixations.members import list_members
from adaptive_nets.data.folders import data_root
from adaptive_nets.data.pictures import decode_picture
from adaptive_nets.runtime.errors import UserError, did_you_mean

# Entries of the data root: a folder or an archive of the whole set, or its parts.
_PLACES: dict[str, tuple[tuple[str, ...], ...]] = {
    "cat2000": (
        ("cat2000",), ("CAT2000",), ("cat2000.zip",), ("CAT2000.zip",), ("trainSet",),
        ("trainSet.zip",),
    ),
    "mit1003": (
        ("mit1003",), ("MIT1003",), ("mit1003.zip",), ("MIT1003.zip",),
        ("ALLSTIMULI", "ALLSTIMULI.zip", "ALLFIXATIONMAPS", "ALLFIXATIONMAPS.zip"),
        ("mit1003_small",), ("mit1003_small.zip",),
    ),
}  # fmt: skip
FIXATION_SETS = tuple(_PLACES)
"""Names of the sets."""
TITLES = {
    "cat2000": "CAT2000, photographs of twenty categories with fixations",
    "mit1003": "MIT1003, photographs with fixations",
}
"""Human-readable name of each set."""


@dataclasses.dataclass(frozen=True)
class FixationExample:
    """A picture and where people looked.

    Attributes:
        name: name of the picture, with its category.
        image: uint8[H, W, 3], pixels as they are stored.
        points: bool[H, W], True at fixated pixels; None where single fixations are not published.
        density: float32[H, W], blurred fixation map from 0 to 255; None where there is none.
    """

    name: str
    image: UInt8[np.ndarray, "H W 3"]
    points: Bool[np.ndarray, "H W"] | None
    density: Float32[np.ndarray, "H W"] | None


@dataclasses.dataclass(frozen=True)
class FixationSet:
    """Pictures with fixations, read one by one.

    Attributes:
        name: name of the set.
        location: where it is, for people.
        pictures: files of each picture, sorted by name.
        complete: whether all pictures of the published set are there.
    """

    name: str
    location: str
    pictures: tuple[PictureFiles, ...]
    complete: bool

    @property
    def size(self) -> int:
        """Number of pictures."""
        return len(self.pictures)

    @property
    def categories(self) -> tuple[str, ...]:
        """Category of each picture; "" without categories."""
        return tuple(picture.category for picture in self.pictures)

    def first(self, count: int) -> FixationSet:
        """Returns the first pictures, at most `count`; with categories, equally many of each."""
        if count >= self.size:
            return self
        rank: dict[str, int] = {}
        order = []
        for i, picture in enumerate(self.pictures):
            rank[picture.category] = rank.get(picture.category, 0) + 1
            order.append((rank[picture.category], i))
        kept = sorted(i for _, i in sorted(order)[:count])
        pictures = tuple(self.pictures[i] for i in kept)
        return dataclasses.replace(self, pictures=pictures, complete=False)

    def read(self, number: int) -> FixationExample:
        """Reads a picture with its fixations.

        Args:
            number: number of the picture, from 0.

        Raises:
            DamagedDataError: a file cannot be read, has no fixations, or has another size than the
                picture.
        """
        files = self.pictures[number]
        image = decode_picture(files.image.read(), files.image.where)
        points = density = None
        if files.points is not None:
            points = decode_points(files.points.read(), files.points.where)
        if files.density is not None:
            density = decode_density(files.density.read(), files.density.where)
        for member, found in ((files.points, points), (files.density, density)):
            if member is not None and found is not None and found.shape != image.shape[:2]:
                raise DamagedDataError(
                    f"{member.where} has {_size_text(found.shape)} pixels; expected "
                    f"{_size_text(image.shape)}, the size of {files.image.where}"
                )
        return FixationExample(files.name, image, points, density)

    def fingerprint(self) -> str:
        """Computes the sha256, hex, of all files of all pictures."""
        total = hashlib.sha256()
        for files in self.pictures:
            total.update(f"{files.name}\n".encode())
            for member in (files.image, files.points, files.density):
                total.update(hashlib.sha256(member.read() if member else b"").digest())
        return total.hexdigest()


def load_fixations(name: str, *, root: str | Path | None = None) -> FixationSet:
    """Finds a set in the data root: as folders, or as zip archives that stay packed.

    Args:
        name: "cat2000" (the training part, ``Stimuli``, ``FIXATIONLOCS`` and ``FIXATIONMAPS`` by
            category) or "mit1003" (``ALLSTIMULI`` and ``ALLFIXATIONMAPS``, or ``images`` and
            ``fixation_maps`` for a part without single fixations).
        root: data root; see `adaptive_nets.data.folders.data_root`.

    Raises:
        UserError: the name is unknown, or the set is absent, partial or damaged.
    """
    if name not in _PLACES:
        raise UserError(f"fixation set {name!r} is unknown; {did_you_mean(name, _PLACES)}")
    folder = data_root(root)
    for entries in _PLACES[name]:
        paths = [folder / entry for entry in entries if (folder / entry).exists()]
        if paths:
            return _read(paths, name)
    layouts = " or ".join(" with ".join(x.folders) for x in LAYOUTS if x.name == name)
    raise AbsentDataError(
        f"fixation set {name!r} is not in {folder}; put a folder or zip archive {name} with "
        f"{layouts} there, or name another data root with --data-dir"
    )


def read_fixations(path: str | Path) -> FixationSet:
    """Reads a set from a folder or a zip archive anywhere; its layout is recognised.

    Args:
        path: the folder or archive.

    Raises:
        UserError: there is no such path or no known layout, or the set is partial or damaged.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise AbsentDataError(f"{path} does not exist; expected a folder or a zip archive")
    return _read([path], None)


def _read(paths: list[Path], name: str | None) -> FixationSet:
    members = list_members(paths)
    layout = find_layout(members)
    location = " and ".join(map(str, paths))
    if layout is None or (name is not None and layout.name != name):
        names = " or ".join(" with ".join(x.folders) for x in LAYOUTS if name in (None, x.name))
        raise AbsentDataError(f"{location} is no set of fixations; expected folders {names}")
    pictures = layout.collect(members)
    if not pictures:
        raise AbsentDataError(f"{location} has no pictures in {layout.folders[0]}")
    return FixationSet(
        layout.name, location, tuple(pictures), complete=len(pictures) == layout.count
    )


def _size_text(shape: tuple[int, ...]) -> str:
    """Formats a size as width x height."""
    return f"{shape[1]}x{shape[0]}"
