"""Axis scales, lines and labels shared by figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from experiments.report.settings import Curve


def log_axis(axes: Axes, low: float, high: float, *, axis: str = "y") -> None:
    """Sets up a logarithmic axis with few ticks, labelled by plain numbers.

    Args:
        axes: Axes to set up.
        low: Smallest value drawn; positive.
        high: Largest value drawn.
        axis: "x" or "y".
    """
    low, high = low / 1.15, high * 1.15
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1.0,), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        ticks = [d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= high]
        if len(ticks) >= 3:
            break
    else:
        # Within a factor of two, evenly spaced ticks are easier to read.
        ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
    ticks = ticks[:: math.ceil(len(ticks) / 7)]
    getattr(axes, f"set_{axis}scale")("log")
    getattr(axes, f"set_{axis}lim")(low, high)
    side = getattr(axes, f"{axis}axis")
    side.set_major_locator(FixedLocator(ticks))
    side.set_minor_locator(NullLocator())
    getattr(axes, f"set_{axis}ticklabels")([plain_number(t) for t in ticks])


def plain_number(value: float) -> str:
    """Formats the label of a tick: 10⁻⁵, 0.001, 0.5, 20, 5,000, 10k."""
    if value and abs(value) < 1e-3:
        exponent = math.floor(math.log10(abs(value)) + 1e-9)
        digit = value / 10.0**exponent
        power = "10" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return power if abs(digit - 1) < 1e-6 else f"{digit:g}·{power}"
    return f"{value / 1000:,.10g}k" if value >= 10000 else f"{value:,.10g}"


def percentage(value: float) -> str:
    """Formats a percentage with two decimals, or more if two would round it up to 100."""
    decimals = 2
    while decimals < 6 and value < 100 and float(f"{value:.{decimals}f}") >= 100:
        decimals += 1
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".")


def nines(sparsity: float) -> float:
    """Computes −log₁₀ of the share of weights left, so that 90, 99 and 99.9 % are evenly spaced.

    At 100 % it is infinite; `sparsity_axis` draws that value at the end of the axis.

    Args:
        sparsity: Share of removed weights, %.
    """
    return math.inf if sparsity >= 100 else -math.log10(1 - sparsity / 100)


def sparsity_axis(axes: Axes, sparsities: Sequence[float]) -> float:
    """Sets up the y axis for `nines` and returns the position of 100 %.

    Args:
        axes: Axes to set up.
        sparsities: All values to be drawn, %.
    """
    finite = [nines(s) for s in sparsities if s < 100] or [1.0]
    full = any(s >= 100 for s in sparsities)
    low, top = min(0.0, *finite), max(finite)
    end = top + (0.6 if full else 0.15)
    limit = end + (0.1 if full else 0.0)
    room = axes.get_window_extent().height / (limit - low)
    left = (10.0,) if room < 55 else (10.0, 5.0) if room < 80 else (10.0, 5.0, 2.0)
    ticks = sorted({100.0 - digit * 10.0**-i for i in range(-1, 5) for digit in left})
    # Drop ticks whose labels would overlap that of 100 %.
    ticks = [t for t in ticks if t >= 0 and nines(t) <= (end - 16 / room if full else end)]
    places, labels = [nines(t) for t in ticks], [f"{t:.6g}" for t in ticks]
    if full:
        places, labels = [*places, end], [*labels, "100"]
    axes.set_ylim(low, limit)
    axes.yaxis.set_major_locator(FixedLocator(places))
    axes.set_yticklabels(labels)
    return end


def label_ends(axes: Axes, labels: Sequence[tuple[float, str, str]], *, gap: float = 14.0) -> None:
    """Labels lines at their right ends and moves overlapping labels apart.

    Args:
        axes: Axes with final limits.
        labels: (y in data units, text, colour) of each line.
        gap: Smallest distance between labels, pixels.
    """
    height = axes.get_window_extent().height
    low, high = axes.get_ylim()
    wanted = sorted(((y - low) / (high - low) * height, text, c) for y, text, c in labels)
    places = [y for y, _, _ in wanted]
    for _ in range(200):
        for i in range(len(places) - 1):
            short = gap - (places[i + 1] - places[i])
            if short > 0:
                places[i] -= short / 2
                places[i + 1] += short / 2
        places = [min(max(y, 0.0), height) for y in places]
    for y, (_, text, colour) in zip(places, wanted, strict=True):
        axes.annotate(
            text,
            (1, y / height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


def legend_above(axes: Axes, columns: int = 4) -> None:
    """Places a legend between the title and the axes, in as many columns as fit.

    `charts.panel` makes the panel higher if the rows of the legend need more than its top margin.

    Args:
        axes: Axes with labelled lines.
        columns: Largest number of columns.
    """
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    room = canvas.bbox.width - axes.get_window_extent().x0
    entries = len(axes.get_legend_handles_labels()[1])
    for limit in range(min(columns, entries), 0, -1):
        # As many rows as the limit requires, filled evenly.
        count = math.ceil(entries / math.ceil(entries / limit))
        legend = axes.legend(
            loc="lower left", bbox_to_anchor=(0.0, 0.99), ncols=count, borderaxespad=0.0,
            borderpad=0.3, handlelength=1.6, columnspacing=1.2, handletextpad=0.5,
        )  # fmt: skip
        if legend.get_window_extent().width <= room:
            return


def draw_curve(
    axes: Axes, curve: Curve, colour: str, label: str | None = None, **style: object
) -> None:
    """Draws the mean over seeds as a line and their range as a band.

    On a logarithmic axis, values ≤ 0 leave a gap.
    """

    def positive(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values, np.float64)
        return np.where(array > 0, array, np.nan) if axes.get_yscale() == "log" else array

    axes.plot(curve.epochs, positive(curve.mean), color=colour, label=label, **style)  # pyright: ignore[reportArgumentType]
    if curve.low != curve.high:
        axes.fill_between(
            curve.epochs,
            positive(curve.low),
            positive(curve.high),
            color=colour,
            alpha=0.2,
            linewidth=0,
        )
