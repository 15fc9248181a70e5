"""Figures of perforation masks and impacts, all layers on one sheet."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from adaptive_nets.perforation import PerforationPlan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically

_FORMATS = (".svg", ".png", ".pdf")
_COLUMNS = 6
_SIDE = 1.6


def mask_sheet(plan: PerforationPlan, path: Path | str | None = None) -> Figure:
    """Draws the masks of all layers of a plan; computed positions are dark.

    Args:
        plan: perforation plan of a network.
        path: file to write, .svg, .png or .pdf; None writes no file.

    Returns:
        The figure; no window is opened.

    Raises:
        UserError: the plan has no layers, or the file has another suffix.
    """
    maps = {name: layer.mask.astype(np.float64) for name, layer in plan.layers.items()}
    notes = {name: f"{layer.kind}, rate {layer.rate:.3g}" for name, layer in plan.layers.items()}
    return _sheet("plan", maps, notes, path, title=plan.model, cmap="Greys", vmin=0.0, vmax=1.0)


def impact_sheet(
    impacts: Mapping[str, Float[np.ndarray, "H W"]],
    path: Path | str | None = None,
    *,
    title: str = "",
) -> Figure:
    """Draws average impacts B(x, y) of all layers, each scaled from zero to its maximum.

    Args:
        impacts: name of a layer -> float[H', W'], from `average_impact`.
        path: file to write, see `mask_sheet`.
        title: title of the figure.

    Returns:
        The figure.

    Raises:
        UserError: there are no impacts, or the file has another suffix.
    """
    notes = {name: f"maximum {np.max(impact):.2e}" for name, impact in impacts.items()}
    return _sheet("impacts", impacts, notes, path, title=title, cmap="viridis", vmin=0.0)


def _sheet(
    what: str,
    maps: Mapping[str, np.ndarray],
    notes: Mapping[str, str],
    path: Path | str | None,
    *,
    title: str,
    **colours: Any,
) -> Figure:
    if not maps:
        raise UserError(f"{what} has no layers; expected at least one to draw")
    columns = min(_COLUMNS, len(maps))
    rows = math.ceil(len(maps) / columns)
    figure = Figure((_SIDE * columns, (_SIDE + 0.5) * rows + 0.3), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title, fontsize=9)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in places:
        axes.set_axis_off()
    for axes, (name, values) in zip(places, maps.items(), strict=False):
        axes.imshow(values, interpolation="nearest", **colours)
        axes.set_title(f"{name}\n{notes[name]}", fontsize=6)
        axes.set_axis_on()
        axes.set_xticks([])
        axes.set_yticks([])
    if path is not None:
        _write(figure, Path(path))
    return figure


def _write(figure: Figure, path: Path) -> None:
    """Writes a figure atomically; equal figures give equal files."""
    if path.suffix not in _FORMATS:
        raise UserError(f"path is {str(path)!r}; expected a file ending in {', '.join(_FORMATS)}")
    content = io.BytesIO()
    dated = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix]
    with matplotlib.rc_context({"svg.hashsalt": "adaptive_nets"}):
        figure.savefig(content, format=path.suffix[1:], dpi=150, metadata=dated)
    write_bytes_atomically(path, content.getvalue())
