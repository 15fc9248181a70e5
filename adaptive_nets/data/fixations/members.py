"""Files of a set in folders and zip archives, read without unpacking the archives."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary, read_bytes
from adaptive_nets.data.image_locations import is_hidden
from adaptive_nets.runtime.reading import open_file

MEMBER_LIMIT = 256 << 20
"""Most bytes of one file of a set."""
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class Member:
    """A file of a set: in a folder, or a member of a zip archive.

    Attributes:
        path: the file, or the archive.
        name: name in the archive, or name of the listed folder and name in it, with "/" between
            their parts.
        offset: position of the member's header in the archive; -1 for a file in a folder.
        packed: number of bytes in the archive.
        size: number of bytes.
        method: compression of `zipfile`, stored or deflated.
        checksum: CRC-32 of the content.
    """

    path: Path
    name: str
    offset: int = -1
    packed: int = 0
    size: int = 0
    method: int = zipfile.ZIP_STORED
    checksum: int = 0

    @property
    def where(self) -> str:
        """The file, or its name and that of its archive, for messages."""
        return str(self.path) if self.offset < 0 else f"{self.name} in {self.path}"

    def read(self) -> bytes:
        """Reads the file.

        Raises:
            AbsentDataError: the file is gone.
            DamagedDataError: it cannot be read, is larger than `MEMBER_LIMIT`, or differs from the
                checksum of its archive.
        """
        if self.offset < 0:
            return read_bytes(self.path, limit=MEMBER_LIMIT)
        try:
            content = self._read_packed()
        except (OSError, struct.error, zlib.error, ValueError) as error:
            raise DamagedDataError(
                f"{self.where}: damaged archive ({error_summary(error)}); fetch it again"
            ) from error
        return content

    def _read_packed(self) -> bytes:
        if self.size > MEMBER_LIMIT:
            raise ValueError(f"it unpacks to {self.size:,} bytes, more than {MEMBER_LIMIT:,}")
        with open_file(self.path) as file:
            file.seek(self.offset)
            header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
            if header[0] != b"PK\3\4":
                raise ValueError("there is no member at its place")
            file.seek(header[-2] + header[-1], os.SEEK_CUR)
            content = file.read(self.packed)
        if self.method == zipfile.ZIP_DEFLATED:
            # No more than the directory says, and one byte that shows that there is more.
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, self.size + 1)
        if len(content) != self.size or zlib.crc32(content) != self.checksum:
            raise ValueError("its content differs from its checksum")
        return content


def list_members(paths: Iterable[Path]) -> list[Member]:
    """Lists the files in folders and zip archives.

    Of a folder, all files below it are listed, and the members of the zip archives directly in it.
    Hidden files and folders, and the resource forks of macOS, are left out.

    Args:
        paths: folders and archives.

    Returns:
        Members sorted by name; of two equal names the one in a folder is first.

    Raises:
        DamagedDataError: a folder or an archive cannot be read, or a member is encrypted or packed
            by another method than deflate.
    """
    found: list[Member] = []
    for path in paths:
        if path.is_dir():
            files = _list_folder(path)
            archives = [
                m for m in files if m.path.suffix.lower() == ".zip" and m.path.parent == path
            ]
            found += [member for member in files if member not in archives]
            for archive in archives:
                found += _list_archive(archive.path)
        else:
            found += _list_archive(path)
    return sorted(found, key=lambda member: (member.name, member.offset))


def _list_folder(folder: Path) -> list[Member]:
    def refuse(error: OSError) -> None:
        raise DamagedDataError(f"{error.filename} cannot be read: {error_summary(error)}")

    members, top = [], folder.resolve().name
    for place, _, names in os.walk(folder, onerror=refuse, followlinks=False):
        for name in names:
            path = Path(place) / name
            relative = path.relative_to(folder)
            if not is_hidden(relative):
                members.append(Member(path, f"{top}/{relative.as_posix()}"))
    return members


def _list_archive(archive: Path) -> list[Member]:
    try:
        with open_file(archive) as file, zipfile.ZipFile(file) as opened:
            infos = opened.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise DamagedDataError(
            f"{archive} cannot be read as a zip archive ({error_summary(error)}); fetch it again"
        ) from error
    members = []
    for info in infos:
        path = PurePosixPath(info.filename)
        if info.is_dir() or is_hidden(path) or "__MACOSX" in path.parts:
            continue
        if info.flag_bits & _ENCRYPTED or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise DamagedDataError(
                f"{info.filename} in {archive} is encrypted or packed by an unknown method; "
                "expected a plain zip archive"
            )
        members.append(
            Member(
                archive, str(path), info.header_offset, info.compress_size, info.file_size,
                info.compress_type, info.CRC,
            )
        )  # fmt: skip
    return members
