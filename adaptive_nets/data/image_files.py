"""Image files of any size, brought to the pixels that a network takes."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, list_names
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import open_file

SUFFIXES = (
    ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
HIDDEN = "hidden files and folders"
_SIXTEEN_BITS = 65535


def find_images(paths: Iterable[str | Path], skipped: Counter[str] | None = None) -> list[Path]:
    """Lists image files; a folder stands for the images in it, sorted by name.

    Hidden files, folders, and files with other suffixes than `SUFFIXES` are left out of a folder. A
    file that is named itself is always taken.

    Args:
        paths: files and folders.
        skipped: counts what is left out of a folder, by reason.

    Raises:
        AbsentDataError: A path does not exist, or a folder has no image in it.
        DamagedDataError: A folder cannot be read.
    """
    found: list[Path] = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            there = list_names(path)
            names = sorted(name for name in there if is_image(name))
            if skipped is not None:
                skipped.update(_reason(path, name) for name in there.difference(names))
            if not names:
                raise AbsentDataError(
                    f"folder {path} has no image in it; expected files ending in "
                    f"{', '.join(SUFFIXES)}"
                )
            found += [path / name for name in names]
        elif path.exists():
            found.append(path)
        else:
            raise AbsentDataError(
                f"image {path} does not exist; expected an image file or a folder of images"
            )
    return found


def is_image(name: str) -> bool:
    """Returns whether a name has the ending of an image and is not hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def ending(name: str) -> str:
    """Returns the reason for which a file that is no image is passed over."""
    suffix = PurePath(name).suffix.lower()
    return f"files ending in {suffix}" if suffix.isprintable() and suffix else "files of no ending"


def passed_over(skipped: Mapping[str, int]) -> str:
    """Describes what was passed over, by reason, in one line."""
    found = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()) if count)
    return f"{found}; images end in {', '.join(SUFFIXES)}" if found else ""


def _reason(folder: Path, name: str) -> str:
    if name.startswith("."):
        return HIDDEN
    return "folders" if (folder / name).is_dir() else ending(name)


def read_image(
    path: str | Path, shape: tuple[int, int, int], *, invert: bool = False
) -> np.ndarray:
    """Reads one image file.

    The orientation of EXIF is applied. Colour becomes grey or grey becomes colour as `shape` asks;
    16-bit grey is scaled to 8 bits; transparent pixels are laid over white. The largest central
    part with the sides' ratio of `shape` is resized, so nothing is stretched; an image of that size
    keeps its pixels.

    Args:
        path: The file.
        shape: (H, W, C) of the result; C is 1 or 3.
        invert: Whether dark and bright change places.

    Returns:
        uint8[H, W, C].

    Raises:
        AbsentDataError: There is no such file.
        DamagedDataError: It is no image, or cannot be decoded.
        UserError: `shape` is not one of images.
    """
    from PIL import Image, ImageOps

    height, width, channels = shape
    if channels not in (1, 3):
        raise UserError(f"images have 1 or 3 channels; this network takes {channels}")
    path = Path(path)
    try:
        with warnings.catch_warnings():
            # Pillow warns of images that are only large, and refuses those that are too large.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with open_file(path) as file, Image.open(file) as opened:
                image = ImageOps.exif_transpose(opened)
                image = to_mode(image, "L" if channels == 1 else "RGB")
                if image.size != (width, height):
                    # Cut first: the filter of a resize reads past the edges of its box.
                    image = image.crop(central_box(*image.size, ratio=width / height))
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise AbsentDataError(f"image {path} does not exist; expected an image file") from error
    except Exception as error:  # Decoders raise what they like.
        raise DamagedDataError(
            f"{path} cannot be read as an image ({error_summary(error)}); expected PNG, JPEG or "
            "another format of Pillow"
        ) from error
    pixels = np.asarray(image, np.uint8).reshape(shape)
    return 255 - pixels if invert else pixels


def central_box(width: int, height: int, *, ratio: float) -> tuple[int, int, int, int]:
    """Returns the largest central part with a ratio of width to height, in whole pixels.

    Args:
        width: Of the image.
        height: Of the image.
        ratio: Width over height of the part.

    Returns:
        (left, top, right, bottom).
    """
    w = max(1, min(width, round(height * ratio)))
    h = max(1, min(height, round(width / ratio)))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def to_mode(image: Any, mode: str) -> Any:
    """Returns an image of 8 bits in mode "L" or "RGB".

    Grey of 16 bits is scaled, and transparent pixels are laid over white.

    Raises:
        ValueError: the values are floating-point numbers or beyond 16 bits.
    """
    from PIL import Image

    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > _SIXTEEN_BITS:
            raise ValueError("grey values beyond 16 bits")
        image = Image.fromarray(np.round(values * (255 / _SIXTEEN_BITS)).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("grey values are floating-point numbers")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
