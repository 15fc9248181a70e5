"""Listings of tar archives of images, without unpacking them."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.image_classes import check_class, read_labels
from adaptive_nets.data.image_files import HIDDEN, ending, is_image
from adaptive_nets.data.image_locations import ImageFile, is_hidden
from adaptive_nets.runtime.reading import open_file

_BLOCK = tarfile.BLOCKSIZE
_HEADER_LIMIT = 1 << 20  # Bytes of one extended header, which holds names.
_LINKS = "links in archives"


def list_archive(
    archive: Path,
    *,
    flat: tuple[str, ...],
    skipped: Counter[str],
    report: Callable[[str, int, int], None],
) -> list[ImageFile]:
    """Lists the images of an archive of class archives, or of one beside a file of labels.

    Args:
        archive: uncompressed tar archive.
        flat: folder names in the archive that are not classes.
        skipped: counts members that are passed over, by reason.
        report: called with the progress.

    Raises:
        DamagedDataError: the archive is damaged, cut off, or has a member that leads out of it.
        UserError: the class of an image is unknown.
    """
    images: list[ImageFile] = []
    class_of: Callable[[str], str] | None = None
    try:
        with open_file(archive) as file:
            size = archive.stat().st_size
            for member in _members(file, 0, size):
                report(f"listing {archive.name}", member.offset, size)
                path = PurePosixPath(member.name)
                name = path.name
                if name.endswith(".tar") and member.isfile() and not is_hidden(path):
                    wordnet = check_class(name.removesuffix(".tar"), str(archive))
                    images += _list_inner(file, archive, member, wordnet, skipped)
                elif _is_wanted(member, path, skipped):
                    inside = path.parent.name
                    if not inside or inside in flat:
                        class_of = class_of or read_labels(archive.parent, is_image=is_image)
                        inside = class_of(name)
                    inside = check_class(inside, str(archive))
                    images.append(ImageFile(archive, member.offset_data, member.size, name, inside))
    except OSError as error:
        raise DamagedDataError(f"{archive} cannot be read: {error_summary(error)}") from error
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise DamagedDataError(
            f"{archive}: damaged archive ({error_summary(error)}); fetch it again"
        ) from error
    return images


def _list_inner(
    file: IO[bytes], archive: Path, outer: tarfile.TarInfo, wordnet: str, skipped: Counter[str]
) -> list[ImageFile]:
    images = []
    try:
        for member in _members(file, outer.offset_data, outer.size):
            path = PurePosixPath(member.name)
            if _is_wanted(member, path, skipped):
                offset = outer.offset_data + member.offset_data
                images.append(ImageFile(archive, offset, member.size, path.name, wordnet))
    except (tarfile.TarError, ValueError, EOFError, OverflowError, RecursionError) as error:
        raise ValueError(f"{outer.name}: {error_summary(error)}") from error
    return images


def _is_wanted(member: tarfile.TarInfo, path: PurePosixPath, skipped: Counter[str]) -> bool:
    """Returns whether a member is an image; counts it if it is passed over."""
    if member.isdir():
        return False
    if is_hidden(path):
        skipped[HIDDEN] += 1
    elif not member.isfile():
        skipped[_LINKS if member.issym() or member.islnk() else "special files"] += 1
    elif not is_image(path.name):
        skipped[ending(path.name)] += 1
    else:
        return True
    return False


def _members(file: IO[bytes], start: int, size: int) -> Iterator[tarfile.TarInfo]:
    """Lists the members of the archive in `size` bytes from `start`, offsets from there on.

    Raises:
        tarfile.TarError: the archive is damaged or cut off, or a member leads out of it.
        ValueError: likewise.
    """
    view = _FileSlice(file, start, size)
    with tarfile.open(fileobj=view, mode="r:") as tar:  # pyright: ignore
        last = -1
        for member in tar:
            shown = member.name[:80]
            if member.size < 0 or member.offset <= last:
                raise ValueError(f"the member {shown!r} has the size {member.size}")
            if member.offset_data + member.size > size:
                raise ValueError(f"it is cut off in the member {shown!r}")
            if member.issparse():
                raise ValueError(f"the member {shown!r} is stored with holes")
            if PurePosixPath(member.name).is_absolute() or ".." in PurePosixPath(member.name).parts:
                raise ValueError(f"the member {shown!r} leads out of the archive")
            last = member.offset
            yield member
        # The library takes a damaged header for the end.
        view.seek(tar.offset)
        if view.read(_BLOCK) != bytes(_BLOCK):
            raise ValueError(f"it has neither a member nor its end at byte {tar.offset:,}")


class _FileSlice:
    """File-like view of a byte range of a file, for `tarfile`, which reads headers only."""

    def __init__(self, file: IO[bytes], start: int, size: int):
        self._file, self._start, self._size = file, start, size
        self._at = 0

    def read(self, count: int = -1) -> bytes:
        if not 0 <= count <= _HEADER_LIMIT:
            raise ValueError(f"a header of {count} bytes")
        # Other slices of the same file move its position.
        self._file.seek(self._start + self._at)
        content = self._file.read(max(0, min(count, self._size - self._at)))
        self._at += len(content)
        return content

    def seek(self, position: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._at, 2: self._size}[whence]
        if base + position < 0:
            raise ValueError(f"a position of {base + position}")
        self._at = base + position
        return self._at

    def tell(self) -> int:
        return self._at
