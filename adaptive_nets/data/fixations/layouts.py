"""Layouts of published sets of fixations: which files belong to each picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from adaptive_nets.data.errors import PartialDataError
from adaptive_nets.data.fixations.members import Member
from adaptive_nets.data.image_files import is_image


@dataclass(frozen=True)
class PictureFiles:
    """Files of one picture.

    Attributes:
        name: name of the picture, with its category.
        category: category of the picture; "" without categories.
        image: the photograph.
        points: its single fixations; None if they are not published.
        density: its blurred fixation map; None if there is none.
    """

    name: str
    category: str
    image: Member
    points: Member | None
    density: Member | None


@dataclass(frozen=True)
class Layout:
    """Layout of a set.

    Attributes:
        name: name of the set.
        folders: names by which the layout is recognised: all of them are folders of the set.
        count: number of pictures of the complete set.
        collect: sorts members into pictures.
    """

    name: str
    folders: tuple[str, ...]
    count: int
    collect: Callable[[Sequence[Member]], list[PictureFiles]]


_Key = tuple[str, str]
"""Category and name of a picture."""


def _below(
    members: Sequence[Member],
    folder: str,
    *,
    depth: int = 0,
    keep: Callable[[str], bool] = is_image,
    suffix: str = "",
) -> dict[_Key, Member]:
    """Returns the files of a folder of the set by category and name.

    Args:
        members: files of the set.
        folder: name of the folder, wherever it lies.
        depth: folders between it and a file: 1 if it has one for each category.
        keep: selects files by name.
        suffix: end of the stem, which is no part of the picture's name.
    """
    found: dict[_Key, Member] = {}
    for member in members:
        path = PurePosixPath(member.name)
        place = path.parts[: len(path.parts) - 1 - depth]
        # Pictures of the test part have no public fixations.
        if not place or place[-1] != folder or "testSet" in place:
            continue
        if keep(path.name) and path.stem.endswith(suffix):
            stem = path.stem.removesuffix(suffix)
            found.setdefault((path.parts[-2] if depth else "", stem), member)
    return found


def _paired(
    images: dict[_Key, Member],
    points: dict[_Key, Member],
    densities: dict[_Key, Member],
    *,
    expected: str,
) -> list[PictureFiles]:
    """Pairs pictures with their fixations.

    Raises:
        PartialDataError: a picture has no fixations, or fixations have no picture.
    """
    for found in (points, densities):
        alone = sorted(found.keys() - images.keys())
        if alone:
            raise PartialDataError(
                f"{found[alone[0]].where} has no picture {'/'.join(filter(None, alone[0]))}; "
                "expected one of each fixation map"
            )
    required = points or densities
    missing = sorted(images.keys() - required.keys())
    if missing:
        raise PartialDataError(f"{images[missing[0]].where} has no fixations; expected {expected}")
    return [
        PictureFiles(
            "/".join(filter(None, key)), key[0], images[key], points.get(key), densities.get(key)
        )
        for key in sorted(images)
    ]


def _is_matrix(name: str) -> bool:
    return name.lower().endswith(".mat")


def _cat2000(members: Sequence[Member]) -> list[PictureFiles]:
    return _paired(
        _below(members, "Stimuli", depth=1),
        _below(members, "FIXATIONLOCS", depth=1, keep=_is_matrix),
        _below(members, "FIXATIONMAPS", depth=1),
        expected="FIXATIONLOCS/CATEGORY/NAME.mat",
    )


def _mit1003(members: Sequence[Member]) -> list[PictureFiles]:
    return _paired(
        _below(members, "ALLSTIMULI"),
        _below(members, "ALLFIXATIONMAPS", suffix="_fixPts"),
        _below(members, "ALLFIXATIONMAPS", suffix="_fixMap"),
        expected="ALLFIXATIONMAPS/NAME_fixPts.jpg",
    )


def _small(members: Sequence[Member]) -> list[PictureFiles]:
    return _paired(
        _below(members, "images"),
        {},
        _below(members, "fixation_maps"),
        expected="fixation_maps/NAME.jpg",
    )


LAYOUTS = (
    Layout("cat2000", ("Stimuli", "FIXATIONLOCS"), 2000, _cat2000),
    Layout("mit1003", ("ALLSTIMULI", "ALLFIXATIONMAPS"), 1003, _mit1003),
    Layout("mit1003", ("images", "fixation_maps"), 1003, _small),
)
"""CAT2000's training part, MIT1003, and a part of MIT1003 with blurred maps alone."""


def find_layout(members: Sequence[Member]) -> Layout | None:
    """Returns the first layout whose folders are all there; None if there is none."""
    folders = {part for member in members for part in PurePosixPath(member.name).parts[:-1]}
    return next((layout for layout in LAYOUTS if folders.issuperset(layout.folders)), None)
