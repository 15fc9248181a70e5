"""Photographs in folders and in zip archives, read by byte range without unpacking."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.image_files import to_mode
from adaptive_nets.runtime.reading import open_file

IMAGE_LIMIT = 1 << 30
"""Most bytes of one encoded image."""
_HEADER = struct.Struct("<4s22xHH")  # Signature, lengths of the name and of the extra field.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1


@dataclass(frozen=True, slots=True)
class ImageLocation:
    """Location of one encoded photograph: a file, or a member of a zip archive.

    Attributes:
        path: image file or archive.
        name: name of the image as its annotation gives it.
        size: size of the encoded image, bytes.
        offset: position of the member's header in the archive; -1 for a file of its own.
        packed: size of the member in the archive, bytes.
        deflated: whether the member is compressed.
    """

    path: str
    name: str
    size: int
    offset: int = -1
    packed: int = 0
    deflated: bool = False

    @property
    def where(self) -> str:
        """Path of the image, or its name and that of its archive, for messages."""
        return self.path if self.offset < 0 else f"{self.name} in {self.path}"

    def read(self) -> bytes:
        """Reads the encoded image.

        Raises:
            DamagedDataError: the file is missing, cannot be read, or is not the one that was found.
        """
        try:
            with open_file(self.path) as file:
                content = file.read(self.size + 1) if self.offset < 0 else self._unpack(file)
        except FileNotFoundError as error:
            raise DamagedDataError(
                f"{self.where} is missing; put it back, or import the data set again"
            ) from error
        except (OSError, struct.error, zlib.error, ValueError) as error:
            raise DamagedDataError(
                f"{self.where} cannot be read: {error_summary(error)}"
            ) from error
        if len(content) != self.size:
            raise DamagedDataError(
                f"{self.where}: {len(content):,} bytes, expected {self.size:,}; it has changed, "
                "put it back or import the data set again"
            )
        return content

    def _unpack(self, file: io.BufferedReader) -> bytes:
        file.seek(self.offset)
        signature, name, extra = _HEADER.unpack(file.read(_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError("the archive has changed")
        file.seek(name + extra, os.SEEK_CUR)
        content = file.read(self.packed)
        # The size that the directory gives bounds what is unpacked.
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        return unpacker.decompress(content, self.size + 1) if self.deflated else content


class ImageStore(Protocol):
    """Photographs by name."""

    @property
    def location(self) -> Path:
        """Folder or archive."""
        ...

    def find(self, name: str) -> ImageLocation | None:
        """Finds an image; None if there is none of this name.

        Raises:
            DamagedDataError: the name is ambiguous, or leads to no regular file.
        """
        ...


class FolderStore:
    """Photographs in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder

    @property
    def location(self) -> Path:
        """The folder."""
        return self._folder

    def find(self, name: str) -> ImageLocation | None:
        """See `ImageStore`."""
        inside = PurePosixPath(name)
        if not name or inside.is_absolute() or ".." in inside.parts or "\0" in name:
            return None
        # Not normalised, so that an index can take the name off the path.
        path = os.path.join(self._folder, name)
        try:
            with open_file(path) as file:
                return ImageLocation(path, name, os.fstat(file.fileno()).st_size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DamagedDataError(
                f"{path} cannot be read: {error_summary(error)}; expected an image"
            ) from error


class ZipStore:
    """Photographs in a zip archive; folders in front of a name may be left out.

    Args:
        path: the archive.

    Raises:
        DamagedDataError: it is no zip archive, or cannot be read.
    """

    def __init__(self, path: Path):
        self._path = path
        self._members: dict[str, zipfile.ZipInfo | None] = {}
        try:
            with open_file(path) as file, zipfile.ZipFile(file) as archive:
                members = [member for member in archive.infolist() if not member.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise DamagedDataError(
                f"{path} cannot be read as a zip archive ({error_summary(error)}); fetch it again"
            ) from error
        for member in members:
            parts = PurePosixPath(member.filename).parts
            for start in range(len(parts)):
                name = "/".join(parts[start:])
                # A shortened name of two members names neither; a full name wins.
                taken = name in self._members and start > 0
                self._members[name] = None if taken else member

    @property
    def location(self) -> Path:
        """The archive."""
        return self._path

    def find(self, name: str) -> ImageLocation | None:
        """See `ImageStore`."""
        plain = str(PurePosixPath(name))
        if plain not in self._members:
            return None
        member = self._members[plain]
        if member is None:
            raise DamagedDataError(
                f"{self._path} has several members named {name!r}; expected one, or its whole name"
            )
        if member.flag_bits & _ENCRYPTED or member.compress_type not in _METHODS:
            raise DamagedDataError(
                f"{self._path}: {member.filename!r} is encrypted or compressed in an unusual way; "
                "expected a member that is stored or deflated"
            )
        if member.file_size > IMAGE_LIMIT or member.compress_size > IMAGE_LIMIT:
            raise DamagedDataError(
                f"{self._path}: {member.filename!r} has {member.file_size:,} bytes; expected at "
                f"most {IMAGE_LIMIT:,} of an image"
            )
        deflated = member.compress_type == zipfile.ZIP_DEFLATED
        return ImageLocation(
            str(self._path),
            name,
            member.file_size,
            member.header_offset,
            member.compress_size,
            deflated,
        )


def decode_image(content: bytes, where: str, *, height: int, width: int) -> np.ndarray:
    """Decodes a photograph of a known size.

    The orientation of EXIF is applied only if the annotated size needs it: boxes of some sets refer
    to the stored pixels, those of others to the upright picture.

    Args:
        content: encoded image.
        where: place of the image, for messages.
        height: height by the annotation, pixels.
        width: width by the annotation, pixels.

    Returns:
        uint8[height, width, 3].

    Raises:
        DamagedDataError: it is no image, cannot be decoded, or has another size.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what it can still read.
            with Image.open(io.BytesIO(content)) as opened:
                opened.load()
                upright = opened
                if opened.size != (width, height):
                    upright = ImageOps.exif_transpose(opened)
                found = upright.size
                pixels = np.asarray(to_mode(upright, "RGB"), np.uint8)
    except Exception as error:  # Decoders raise many types.
        raise DamagedDataError(
            f"{where} cannot be read as an image ({error_summary(error)}); expected JPEG, PNG or "
            "another format of Pillow"
        ) from error
    if found != (width, height):
        raise DamagedDataError(
            f"{where} has {found[0]} x {found[1]} pixels; expected {width} x {height}, width x "
            "height by its annotation"
        )
    return pixels
