"""Values that appear when the pointer rests on a point of a chart."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.patches import Rectangle

# Most points of one line that get a value: a curve of thousands of steps gets a sample of them.
_MOST = 24
_GROUP = re.compile(r'<g class="hover".*?</g>\n?', re.S)


def hover_values(axes: Axes) -> str:
    """Returns SVG circles with titles over the points of lines, scatters and bars of a chart.

    Args:
        axes: Axes of a chart that has been drawn at 72 pixels per inch.
    """
    height = axes.figure.bbox.height
    circles = []
    for label, x, y in _points(axes):
        across, up = axes.transData.transform((x, y))
        if axes.bbox.padded(1).contains(across, up):
            name = f"{label}: " if label else ""
            text = f"{name}{_text(axes.xaxis, x)}, {_text(axes.yaxis, y)}"
            circles.append(
                f'<circle cx="{across:.1f}" cy="{height - up:.1f}" r="5">'
                f"<title>{html.escape(text)}</title></circle>"
            )
    if not circles:
        return ""
    return '<g class="hover" fill="transparent">' + "".join(circles) + "</g>\n"


def without_hover_values(svg: str) -> str:
    """Returns a chart without these circles, for documents that show it as a picture."""
    return _GROUP.sub("", svg)


def _points(axes: Axes) -> Iterator[tuple[str, float, float]]:
    """Yields label, x and y of every point that is marked."""
    for line in axes.get_lines():
        # Reference lines that span the axes have other coordinates than data.
        if line.get_transform() != axes.transData:
            continue
        xs, ys = (np.asarray(v, float) for v in line.get_data(orig=False))
        every = max(1, math.ceil(len(xs) / _MOST))
        chosen = [i for i in range(len(xs)) if i % every == 0 or i == len(xs) - 1]
        yield from _finite(_label(line), xs[chosen], ys[chosen])
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            offsets = np.ma.filled(np.ma.asarray(collection.get_offsets(), float), np.nan)
            if len(offsets) <= 10 * _MOST:
                yield from _finite(_label(collection), offsets[:, 0], offsets[:, 1])
    for container in axes.containers:
        bars = [patch for patch in container if isinstance(patch, Rectangle)]
        xs = np.array([bar.get_x() + bar.get_width() / 2 for bar in bars])
        ys = np.array([bar.get_y() + bar.get_height() for bar in bars])
        yield from _finite(_label(container), xs, ys)


def _finite(label: str, xs: np.ndarray, ys: np.ndarray) -> Iterator[tuple[str, float, float]]:
    for x, y in zip(xs, ys, strict=True):
        if np.isfinite(x) and np.isfinite(y):
            yield label, float(x), float(y)


def _label(artist: object) -> str:
    """Returns the label of the legend; matplotlib's own begin with an underscore."""
    label = str(artist.get_label() or "")  # pyright: ignore[reportAttributeAccessIssue]
    return "" if label.startswith("_") else label


def _text(axis: object, value: float) -> str:
    """Returns a coordinate as text: the label of its tick, if one is there, or four digits."""
    ticks = axis.get_ticklocs()  # pyright: ignore[reportAttributeAccessIssue]
    labels = axis.get_majorticklabels()  # pyright: ignore[reportAttributeAccessIssue]
    for tick, label in zip(ticks, labels, strict=False):
        text = label.get_text()
        if math.isclose(tick, value, rel_tol=1e-9, abs_tol=1e-12) and not _is_number(text):
            return text or f"{value:.4g}"
    return f"{value:.4g}"


def _is_number(text: str) -> bool:
    return not text or re.fullmatch(r"[-−+\d.,e%  ×k]+", text) is not None
