"""HTML of figures, and of notes on missing figures."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Sequence

from experiments.report.charts import Figure, Missing
from experiments.report.markup import Markup, code, element, folded, join
from experiments.report.pictures import Picture

# Natural width of a panel in its SVG document.
_WIDTH = re.compile(r'<svg[^>]* width="([\d.]+)"')


def figure_section(figures: Sequence[Figure | Missing]) -> list[Markup]:
    """Returns the HTML of one section: the first runs, other runs folded, then notes."""
    drawn = [f for f in figures if isinstance(f, Figure)]
    parts = []
    for (folds, runs), group in itertools.groupby(drawn, key=lambda f: (f.folded, f.runs)):
        grid = element("div", *(_figure(f) for f in group), class_="figures")
        if folds:
            parts.append(folded(join(("Other runs: ", runs)), grid, class_="other-runs"))
        else:
            parts += [element("p", runs, class_="runs"), grid]
    for missing in (f for f in figures if isinstance(f, Missing)):
        commands = join((code(c) for c in missing.commands), ", then ")
        next_step = join(("; run ", commands)) if missing.commands else None
        parts.append(element("p", missing.what, next_step, ".", class_="note missing"))
    return parts


def _figure(figure: Figure) -> Markup:
    panels = [element("div", Markup(svg), class_="panel") for svg in figure.svg]
    panels += [_picture(picture) for picture in figure.pictures]
    many = len(panels) > 1
    # Panels stand beside each other only where each has most of its natural width.
    natural = [float(m[1]) for svg in figure.svg if (m := _WIDTH.search(svg))]
    natural += [picture.width * _zoom(picture) for picture in figure.pictures]
    least = round(0.85 * max(natural, default=400))
    return element(
        "figure",
        element("figcaption", element("strong", figure.title), " ", figure.caption),
        element("div", *panels, class_="panels", style=f"--panel:{least}px"),
        _data(figure) if figure.data else None,
        class_="wide" if many else None,
    )


def _zoom(picture: Picture) -> int:
    """Returns the integer zoom of a picture, which draws all its pixels equally large."""
    return max(1, picture.largest // picture.width)


def _picture(picture: Picture) -> Markup:
    zoom = _zoom(picture)
    low, middle, high = (element("span", end) for end in picture.ends)
    wide = picture.width * zoom
    scale = (
        element("img", src=picture.scale, alt="", width=wide, height=8, class_="scale"),
        element("div", low, middle, high, class_="ends", style=f"width:{wide}px"),
    )
    return element(
        "div",
        element("p", picture.title, class_="picture-title"),
        element(
            "img", src=picture.uri, alt=picture.alt, width=wide, height=picture.height * zoom,
            class_="pixels",
        ),
        *(scale if picture.scale else ()),
        element("p", picture.note, class_="note") if picture.note else None,
        class_="panel picture",
    )  # fmt: skip


def _data(figure: Figure) -> Markup:
    """Returns the plotted numbers as comma-separated values, folded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(figure.data["columns"])
    writer.writerows(figure.data["rows"])
    return folded("Data", element("pre", text.getvalue(), tabindex="0"), class_="data")
