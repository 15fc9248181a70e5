"""SVG charts in one style, with one colour per method, for light and dark pages."""

from __future__ import annotations

import contextlib
import dataclasses
import html
import io
import re
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from experiments.report.hover import hover_values, without_hover_values
from experiments.report.pictures import Picture

# Colours on a light and on a dark page. Those after "shade" are distinguishable to colour-blind
# readers, and each has a contrast of at least 4.5 with its page.
COLOURS = {
    "ink": ("#1f2328", "#e6edf3"),
    "muted": ("#59636e", "#9da7b1"),
    "grid": ("#dde1e6", "#30363d"),
    "shade": ("#eef0f3", "#20262e"),
    "dense": ("#0068a8", "#58b4f5"),
    "sparse": ("#b84a00", "#ff9a4d"),
    "layer1": ("#00755a", "#3ecfa3"),
    "layer2": ("#94417f", "#e79ccd"),
    "layer3": ("#7d6200", "#dfba3f"),
    "layer4": ("#5a55c9", "#aaa6ff"),
    "layer5": ("#4d6675", "#a9c0cd"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
LAYERS = [name for name in COLOURS if name.startswith("layer")]

# Pixels per inch of matplotlib: sizes here are in pixels.
_INCH = 72.0
# Height that a panel's title takes, pixels.
_TITLE_HEIGHT = 22.0
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "adaptive-nets",
    "text.parse_math": False,
    "font.size": 12.0,
    "axes.labelcolor": LIGHT["muted"],
    "axes.edgecolor": LIGHT["muted"],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": LIGHT["grid"],
    "grid.linewidth": 0.8,
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 12.0,
    "legend.labelcolor": LIGHT["ink"],
    "text.color": LIGHT["ink"],
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """Figure of the report.

    Attributes:
        title: Title of a few words.
        caption: Description of the plotted quantities.
        svg: Panels, each a complete SVG document.
        pictures: Raster panels.
        data: Plotted numbers, ``{"columns": names, "rows": values}``, ready for JSON.
        section: Heading of its section.
        runs: Description of the plotted runs.
        folded: Whether the page shows it on demand only.
    """

    title: str
    caption: str
    svg: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    section: str = ""
    runs: str = ""
    folded: bool = False


@dataclasses.dataclass(frozen=True)
class Missing:
    """Note on a figure that lacks records.

    Attributes:
        what: Sentence without its full stop.
        commands: Commands that make the records.
        section: Heading of its section.
    """

    what: str
    commands: tuple[str, ...]
    section: str = ""


@dataclasses.dataclass
class Panel:
    """Axes of one panel, and the finished SVG.

    Attributes:
        axes: Matplotlib axes.
        svg: SVG text; empty until the block of `panel` ends.
    """

    axes: Axes
    svg: str = ""


@contextlib.contextmanager
def panel(
    title: str,
    *,
    size: tuple[int, int] = (400, 270),
    margins: tuple[int, int, int, int] = (46, 14, 30, 42),
) -> Iterator[Panel]:
    """Draws one panel in the common style.

    Args:
        title: Quantity and unit of the y axis, which has no label of its own.
        size: Width and height, pixels.
        margins: Left, right, top and bottom margin, pixels.

    Yields:
        Panel with axes to draw on; its `svg` is set when the block ends.
    """
    (width, height), (left, right, top, bottom) = size, margins
    with matplotlib.rc_context(_STYLE):
        canvas = Canvas(figsize=(width / _INCH, height / _INCH), dpi=_INCH)
        canvas.patch.set_visible(False)
        axes = canvas.add_axes(
            (
                left / width,
                bottom / height,
                (width - left - right) / width,
                (height - top - bottom) / height,
            )
        )
        axes.patch.set_visible(False)
        drawn = Panel(axes)
        yield drawn
        height = _fit_legend(canvas, axes, height)
        # Above the legend.
        canvas.text(4 / width, 1 - 4 / height, title, va="top", weight="bold", size=12.5)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(buffer, format="svg", metadata=nothing)
        values = hover_values(axes)
    drawn.svg = _inline(buffer.getvalue(), title, width).replace("</svg>", f"{values}</svg>")


def _fit_legend(canvas: Canvas, axes: Axes, height: float) -> float:
    """Makes a panel higher, with axes of the same size, until title and legend fit above them.

    Args:
        canvas: The panel.
        axes: Its axes.
        height: Its height, pixels.

    Returns:
        The new height, pixels.
    """
    legend = axes.get_legend()
    if legend is None:
        return height
    missing = legend.get_window_extent().y1 + _TITLE_HEIGHT - height
    if missing <= 0:
        return height
    taller = height + missing
    left, bottom, wide, high = axes.get_position().bounds
    canvas.set_size_inches(canvas.get_figwidth(), taller / _INCH)
    axes.set_position((left, bottom * height / taller, wide, high * height / taller))
    return taller


def _inline(text: str, label: str, width: int) -> str:
    """Converts matplotlib's SVG document for embedding in a page.

    Removes prolog, metadata and unused ids, and takes the font of the page. Colours become custom
    properties, which the page sets for light and dark; outside a page the light value applies.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.S)
    # Matplotlib writes fonts either as a shorthand or as single properties.
    text = re.sub(r"font: (?:bold |\d+ )*([\d.]+)px [^;\"]*", _font, text)
    text = re.sub(r"; font-family: [^;\"]*|font-family: [^;\"]*; ", "", text)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    for name, light in LIGHT.items():
        text = text.replace(light, f"var(--chart-{name}, {light})")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    # From here on, units are pixels of the page; magnification is limited to 1.1.
    text = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', text, count=2)
    attributes = (
        f'role="img" aria-label="{html.escape(label)}" xmlns="http://www.w3.org/2000/svg" '
        f'style="font-family: system-ui, sans-serif; max-width: {1.1 * width:g}px"'
    )
    text = text.replace('xmlns="http://www.w3.org/2000/svg"', attributes, 1)
    return re.sub(r"\n\s*", "\n", text).strip()


def _font(match: re.Match[str]) -> str:
    weight = "; font-weight: 600" if "bold" in match[0] or "700" in match[0] else ""
    return f"font-size: {match[1]}px{weight}"


def style_sheet() -> str:
    """Returns the custom properties of the chart colours, for light and dark pages."""

    def rules(which: int) -> str:
        return "".join(f"--chart-{name}:{both[which]};" for name, both in COLOURS.items())

    return (
        f":root{{{rules(0)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{rules(1)}}}}}"
    )


def with_background(svg: str) -> str:
    """Returns a panel for documents: outside our own page the background may be dark."""
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    svg = without_hover_values(svg)
    return svg.replace("<defs>", f"{background}\n<defs>", 1) + "\n"
