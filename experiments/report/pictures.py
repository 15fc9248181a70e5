"""Arrays as small PNG images inside the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import math
from collections.abc import Mapping

import matplotlib
import numpy as np
from PIL import Image

# Index of the palette for the gaps between images, and a grey that is no colour of the scales.
_GAP = 255
_GAP_COLOUR = (170, 176, 184)
_LEVELS = 255


@dataclasses.dataclass(frozen=True)
class Picture:
    """A raster image with its colour scale.

    Attributes:
        title: above it.
        uri: PNG as a data URI, one pixel per value.
        width: in values.
        height: in values.
        alt: for those who do not see it.
        scale: colours from the low to the high end as a data URI.
        ends: low end, middle and high end in words; the middle may be empty.
        note: below it.
    largest: width on the page, pixels.
    """

    title: str
    uri: str
    width: int
    height: int
    alt: str
    scale: str
    ends: tuple[str, str, str]
    note: str = ""
    largest: int = 320


def weight_grid(title: str, weights: np.ndarray, *, what: str) -> Picture:
    """Weights of many units as images side by side, centred at zero.

    Args:
        title: whose they are.
        weights: float[U, h, w].
        what: the images, for the alternative text, such as "units of fc1".

    Returns:
        A grid with a gap of one pixel. All images share one symmetric scale; its ends are the
        99.8th percentile of the magnitudes of non-zero weights, so that a single large weight does
        not make the others pale.
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
        # An even number of steps keeps a colour for exactly zero.
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
    # Two grids of images of 28 by 28 just fit beside each other on a wide screen.
    largest = 463 if wide > 100 else 340
    uri, scale = _uri(grid, "PRGn"), _scale("PRGn")
    return Picture(title, uri, wide, high, alt, scale, ends, note, largest)


def pixel_map(title: str, counts: np.ndarray) -> Picture:
    """How many weights every input pixel keeps.

    Args:
        title: whose they are.
        counts: int[H, W].
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
    """Maps of several layers on one sheet, each with a scale of its own from 0 to its largest.

    Args:
        title: whose they are.
        maps: layer -> [H, W], not negative; of one larger than 64 only the first 64 rows and
            columns are drawn.
        what: the maps, for the alternative text, such as "masks".
        ends: low end, middle and high end of the scale in words.
        note: below the sheet.

    Returns:
        Maps in rows, smaller ones magnified by whole factors, with gaps between.
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
    notes = (note, "Of maps larger than 64x64 the corner is shown." if clipped else "")
    height, width = sheet.shape
    return Picture(
        title,
        _uri(sheet, "cividis"),
        width,
        height,
        f"{title}: {what} of {sizes}",
        _scale("cividis"),
        ends,
        " ".join((f"In order of the layers: {sizes}.", *(n for n in notes if n))),
        640,
    )


def map_grid(
    title: str, maps: np.ndarray, *, what: str, low: float, high: float, note: str = ""
) -> Picture:
    """Non-negative maps side by side on one scale.

    Args:
        title: what is mapped.
        maps: float[P, h, w]; each is enlarged by whole numbers to the same size.
        what: unit of the values.
        low: value of the darkest colour.
        high: value of the brightest.
        note: below the picture.
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
    return Picture(title, uri, width, height, alt, scale, ends, note, 463)


def photo_grid(title: str, images: np.ndarray) -> Picture:
    """Images side by side in shades of grey, in the order of `map_grid`.

    Args:
        title: what they are.
        images: uint8[P, H, W, C].
    """
    grey = images.astype(np.float64) @ np.full(images.shape[-1], 1 / images.shape[-1])
    grid = _side_by_side(np.rint(grey / 255 * (_LEVELS - 1)).astype(np.uint8))
    height, width = grid.shape
    alt = f"{title}: {len(images)} images in shades of grey"
    return Picture(
        title, _uri(grid, "gray"), width, height, alt, _scale("gray"), ("0", "", "255"), "", 463
    )


# Images of a grid are this large, so that grids of maps and of photographs agree.
_SIDE = 32


def _side_by_side(levels: np.ndarray) -> np.ndarray:
    """uint8[P, h, w] as one picture with gaps of one pixel."""
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
    """Columns of a grid that is full and a little wider than high, where there is one."""
    root = math.sqrt(count)
    for columns in range(math.ceil(root), math.floor(2 * root) + 1):
        if count % columns == 0:
            return columns
    return math.ceil(root)


def _uri(levels: np.ndarray, colour_map: str) -> str:
    """A PNG with a palette, which is a third of one in full colour."""
    steps = np.linspace(0, 1, _LEVELS)
    palette = matplotlib.colormaps[colour_map](steps, bytes=True)[:, :3]
    image = Image.fromarray(levels)
    image.putpalette([*palette.astype(int).reshape(-1).tolist(), *_GAP_COLOUR])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _scale(colour_map: str) -> str:
    return _uri(np.arange(_LEVELS, dtype=np.uint8)[None], colour_map)
