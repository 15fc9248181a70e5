"""Arrays as small PNG images embedded in the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Mapping

import matplotlib
import numpy as np
from PIL import Image

# Palette index of the gaps between images, and their grey, which no colour scale contains.
_GAP = 255
_GAP_COLOUR = (170, 176, 184)
_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class Picture:
    """Raster image with its colour scale.

    Attributes:
        title: Text above the image.
        uri: PNG as a data URI, one pixel per value.
        width: Number of columns.
        height: Number of rows.
        alt: Alternative text.
        scale: PNG of the colours from the low to the high end, as a data URI; "" for none.
        ends: Labels of the low end, the middle and the high end; the middle may be empty.
        note: Text below the image.
        largest: Largest width on the page, pixels.
    """

    title: str
    uri: str
    width: int
    height: int
    alt: str
    scale: str = ""
    ends: tuple[str, str, str] = ("", "", "")
    note: str = ""
    largest: int = 320


def weight_grid(title: str, weights: np.ndarray, *, what: str) -> Picture:
    """Draws the weights of many units as a grid of images.

    Args:
        title: Title of the picture.
        weights: float[U, h, w].
        what: Noun for the images in the alternative text, such as "units of fc1".

    Returns:
        A grid with gaps of one pixel. All images share one scale, symmetric around zero; its ends
        are the 99.8th percentile of the magnitudes of non-zero weights, so that a single large
        weight does not make the others pale.
    """
    weights = weights.astype(np.float64)
    sizes = np.abs(weights[weights != 0])
    limit = float(np.percentile(sizes, 99.8)) if sizes.size else 1.0
    levels = np.clip((weights / limit + 1) / 2, 0, 1)
    count, height, width = weights.shape
    columns = _columns(count)
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), _GAP, np.uint8)
    for i, image in enumerate(levels):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        # With an even number of steps, exactly zero has a colour of its own.
        grid[top : top + height, left : left + width] = np.rint(image * (_LEVELS - 1))
    empty = int(np.sum(~np.any(weights != 0, axis=(1, 2))))
    note = f"{empty} of the {count} shown have no weight left." if empty else ""
    share = 100 * float(np.mean(weights == 0))
    alt = (
        f"{title}: {count} {what} as images of {height} by {width} weights, scale ±{limit:.2g}; "
        f"{share:.0f} % of the weights shown are zero"
    )
    ends = (f"−{limit:.2g}", "0", f"+{limit:.2g}")
    high, wide = grid.shape
    # Two grids of 28x28 images fit beside each other on a wide screen.
    largest = 463 if wide > 100 else 340
    uri, scale = _uri(grid, "PRGn"), _scale("PRGn")
    return Picture(title, uri, wide, high, alt, scale, ends, note, largest)


def pixel_map(title: str, counts: np.ndarray) -> Picture:
    """Draws the number of weights kept per input pixel.

    Args:
        title: Title of the picture.
        counts: int[H, W], kept weights.
    """
    most = int(counts.max())
    levels = np.rint(counts / max(most, 1) * (_LEVELS - 1)).astype(np.uint8)
    unused = int(np.sum(counts == 0))
    height, width = counts.shape
    alt = (
        f"{title}: weights kept per input pixel on {height} by {width} pixels, at most {most}; "
        f"{unused} pixels keep none"
    )
    note = f"{unused} of {counts.size} pixels keep no weight, the busiest keeps {most}."
    ends = ("0", "", f"{most} weights")
    return Picture(
        title, _uri(levels, "cividis"), width, height, alt, _scale("cividis"), ends, note
    )


def map_sheet(
    title: str,
    maps: Mapping[str, np.ndarray],
    *,
    what: str,
    ends: tuple[str, str, str],
    note: str = "",
) -> Picture:
    """Draws maps of several layers on one sheet, each on its own scale from 0 to its maximum.

    Args:
        title: Title of the picture.
        maps: Layer -> [H, W], non-negative; only the first 64 rows and columns are drawn.
        what: Noun for the maps in the alternative text, such as "masks".
        ends: Labels of the low end, the middle and the high end of the scale.
        note: Text below the sheet.

    Returns:
        Maps in rows with gaps between them; smaller maps are magnified by whole factors.
    """
    drawn = [np.asarray(values, np.float64)[:64, :64] for values in maps.values()]
    side = max(max(values.shape) for values in drawn)
    tiles = []
    for values in drawn:
        factor = max(1, side // max(values.shape))
        levels = np.rint(values / max(values.max(), 1e-30) * (_LEVELS - 1)).astype(np.uint8)
        tiles.append(np.kron(levels, np.ones((factor, factor), np.uint8)))
    columns = _columns(len(tiles)) if len(tiles) > 4 else len(tiles)
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (side + 1) - 1, columns * (side + 1) - 1), _GAP, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = i // columns * (side + 1), i % columns * (side + 1)
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    sizes = ", ".join(f"{name} {v.shape[0]}x{v.shape[1]}" for name, v in maps.items())
    clipped = any(max(values.shape) > 64 for values in maps.values())
    notes = (
        note,
        "Maps larger than 64x64 are cropped to their upper left corner." if clipped else "",
    )
    height, width = sheet.shape
    return Picture(
        title,
        _uri(sheet, "cividis"),
        width,
        height,
        f"{title}: {what} of {sizes}",
        _scale("cividis"),
        ends,
        " ".join((f"Layers in order: {sizes}.", *(n for n in notes if n))),
        640,
    )


def map_grid(
    title: str, maps: np.ndarray, *, what: str, low: float, high: float, note: str = ""
) -> Picture:
    """Draws maps side by side on one scale.

    Args:
        title: Title of the picture.
        maps: float[P, h, w], non-negative; magnified by a whole factor.
        what: Unit of the values.
        low: Value of the darkest colour.
        high: Value of the brightest colour.
        note: Text below the picture.
    """
    levels = np.clip((maps - low) / max(high - low, 1e-9), 0, 1) * (_LEVELS - 1)
    grid = _side_by_side(np.rint(levels).astype(np.uint8))
    alt = (
        f"{title}: {len(maps)} maps of {maps.shape[1]} by {maps.shape[2]}, from {maps.min():.2f} "
        f"to {maps.max():.2f} {what}"
    )
    ends = (f"{low:.3g}", "", f"{high:.3g} {what}")
    height, width = grid.shape
    uri, scale = _uri(grid, "cividis"), _scale("cividis")
    largest = 463 if len(maps) > 1 else 320
    return Picture(title, uri, width, height, alt, scale, ends, note, largest)


def photo_grid(title: str, images: np.ndarray) -> Picture:
    """Draws images side by side in their own colours, in the layout of `map_grid`.

    Args:
        title: Title of the picture.
        images: uint8[P, H, W, C], not normalised; three channels are colours, one is grey.
    """
    colours = images if images.shape[-1] == 3 else np.repeat(images[..., :1], 3, axis=-1)
    inside = _side_by_side(np.zeros(images.shape[:3], np.uint8)) != _GAP
    grid = np.stack([_side_by_side(colours[..., i]) for i in range(3)], axis=-1)
    grid[~inside] = _GAP_COLOUR
    height, width = grid.shape[:2]
    alt = f"{title}: {len(images)} images"
    return Picture(title, _png(Image.fromarray(grid)), width, height, alt, largest=463)


# Side of an image in a grid, pixels: grids of maps and of photographs have the same layout.
_SIDE = 32


def _side_by_side(levels: np.ndarray) -> np.ndarray:
    """Tiles uint8[P, h, w] into one image with gaps of one pixel."""
    zoom = max(1, _SIDE // levels.shape[1])
    levels = np.repeat(np.repeat(levels, zoom, axis=1), zoom, axis=2)
    count, height, width = levels.shape
    columns = _columns(count)
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), _GAP, np.uint8)
    for i, image in enumerate(levels):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        grid[top : top + height, left : left + width] = image
    return grid


def _columns(count: int) -> int:
    """Returns the smallest divisor of `count` from √count to 2√count, else ⌈√count⌉."""
    root = math.sqrt(count)
    for columns in range(math.ceil(root), math.floor(2 * root) + 1):
        if count % columns == 0:
            return columns
    return math.ceil(root)


def _uri(levels: np.ndarray, colour_map: str) -> str:
    """Encodes levels as a PNG with a palette, which is a third of the size of full colour."""
    steps = np.linspace(0, 1, _LEVELS)
    palette = matplotlib.colormaps[colour_map](steps, bytes=True)[:, :3]
    image = Image.fromarray(levels)
    image.putpalette([*palette.astype(int).reshape(-1).tolist(), *_GAP_COLOUR])
    return _png(image)


def _png(image: Image.Image) -> str:
    """Encodes an image as a PNG in a data URI."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _scale(colour_map: str) -> str:
    return _uri(np.arange(_LEVELS, dtype=np.uint8)[None], colour_map)
