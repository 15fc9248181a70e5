"""HTML of figures, and of notes on missing figures."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Sequence

from experiments.report.charts import Figure, Missing
from experiments.report.markup import Markup, code, element, folded, join
from experiments.report.pictures import Picture


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
    return element(
        "figure",
        element("figcaption", element("strong", figure.title), " ", figure.caption),
        element("div", *panels, class_=f"panels of-{min(len(panels), 4)}"),
        _data(figure) if figure.data else None,
        class_="wide" if many else None,
    )


def _picture(picture: Picture) -> Markup:
    # An integer zoom draws all weights equally large.
    zoom = max(1, picture.largest // picture.width)
    low, middle, high = (element("span", end) for end in picture.ends)
    return element(
        "div",
        element("p", picture.title, class_="picture-title"),
        element(
            "img", src=picture.uri, alt=picture.alt, width=picture.width * zoom,
            height=picture.height * zoom, class_="pixels",
        ),
        element("img", src=picture.scale, alt="", width=picture.width * zoom, height=8,
                class_="scale"),
        element("div", low, middle, high, class_="ends", style=f"width:{picture.width * zoom}px"),
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
