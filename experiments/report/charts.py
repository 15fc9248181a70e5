"""Charts as SVG: one quiet style, one colour per method, readable on light and dark pages."""

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

from experiments.report.pictures import Picture

# Light and dark value of every colour. The six after "shade" are told apart by colour-blind
# readers too, and each has a contrast of at least 4.5 with its page.
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

# Sizes in pixels: a figure's unit is the inch of 72.
_INCH = 72.0
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
    """A figure of the report.

    Attributes:
        title: a few words.
        caption: what is drawn and how to read it.
        svg: panels, each an SVG document of its own.
        pictures: raster panels.
        data: the numbers behind it: ``{"columns": names, "rows": values}``, ready for JSON.
        section: heading that it stands under.
        runs: whose numbers they are.
        folded: of second interest; the page shows it on demand.
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
    """What cannot be drawn for want of records.

    Attributes:
        what: a sentence without its full stop.
        commands: that make the records.
        section: heading that it stands under.
    """

    what: str
    commands: tuple[str, ...]
    section: str = ""


@dataclasses.dataclass
class Panel:
    """Axes being drawn on, and the SVG once they are done.

    Attributes:
        axes: of matplotlib.
        svg: empty until the block of `panel` ends.
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
        title: names the quantity on the y axis and its unit, since nothing is written sideways.
        size: width and height, pixels.
        margins: left, right, top, bottom, pixels.

    Yields:
        Axes to draw on; `Panel.svg` is there afterwards.
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
        # Above everything else, a legend included.
        canvas.text(4 / width, 1 - 4 / height, title, va="top", weight="bold", size=12.5)
        drawn = Panel(axes)
        yield drawn
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(buffer, format="svg", metadata=nothing)
    drawn.svg = _inline(buffer.getvalue(), title, width)


def _inline(text: str, label: str, width: int) -> str:
    """Matplotlib's document as it can stand inside a page.

    Prolog and metadata go; fonts are the page's; colours become custom properties that a page sets
    for light and dark, with the light value where there is no page; only ids that are used stay.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, flags=re.S)
    # Matplotlib writes either the shorthand or the single properties.
    text = re.sub(r"font: (?:bold |\d+ )*([\d.]+)px [^;\"]*", _font, text)
    text = re.sub(r"; font-family: [^;\"]*|font-family: [^;\"]*; ", "", text)
    text = text.replace("xlink:href", "href").replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    for name, light in LIGHT.items():
        text = text.replace(light, f"var(--chart-{name}, {light})")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]+)"', lambda m: m[0] if m[1] in used else "", text)
    # Units are pixels of the page from here on; a little larger than drawn is as large as it gets.
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
    """The custom properties of the charts' colours, for light and dark pages."""

    def rules(which: int) -> str:
        return "".join(f"--chart-{name}:{both[which]};" for name, both in COLOURS.items())

    return (
        f":root{{{rules(0)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{rules(1)}}}}}"
    )
