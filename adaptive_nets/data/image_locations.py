"""One image in a collection: a file, or a byte range of an archive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.runtime.reading import open_file


@dataclass(frozen=True)
class ImageFile:
    """Location of one image.

    Attributes:
        path: image file or archive.
        offset: position of the image's first byte.
        size: size of the image in bytes.
        name: name of the image, relative to the folder of its class.
        class_name: class of the image.
    """

    path: Path
    offset: int
    size: int
    name: str
    class_name: str

    @property
    def where(self) -> str:
        """Path of the image, or its name and that of its archive, for messages."""
        if self.path.as_posix().endswith(f"/{self.name}"):
            return str(self.path)
        return f"{self.class_name}/{self.name} in {self.path}"

    def read(self) -> bytes:
        """Reads the encoded image.

        Raises:
            DamagedDataError: the file cannot be read or has become shorter.
        """
        try:
            with open_file(self.path) as file:
                file.seek(self.offset)
                content = file.read(self.size)
        except OSError as error:
            raise DamagedDataError(f"{self.path} cannot be read: {error_summary(error)}") from error
        if len(content) != self.size:
            raise DamagedDataError(
                f"{self.where}: damaged, {len(content)} bytes, expected {self.size}"
            )
        return content


def is_hidden(path: PurePath) -> bool:
    """Returns whether a part of a relative path begins with a dot."""
    return any(part.startswith(".") and part not in (".", "..") for part in path.parts)
