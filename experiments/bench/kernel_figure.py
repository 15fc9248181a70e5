"""Figure of the kernel benchmark: speed-up over the share of computed positions."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.bench.kernel_summary import Case

_TITLES = {
    "grid": "Regular grid, fixed",
    "random": "Random positions, fixed",
    "backward": "Gradients for x and w",
    "unit": "Residual unit, run-time mask",
    "masked": "One convolution, run-time mask",
}


def draw(cases: Sequence[Case]) -> str:
    """Returns an SVG with one panel per kind of case.

    A line is one layer at one batch size; the dashed line is the theoretical speed-up.

    Args:
        cases: Cases of a record.
    """
    kinds = [kind for kind in _TITLES if any(case["kind"] == kind for case in cases)]
    figure = Figure(figsize=(3.4 * len(kinds), 3.4), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for panel, kind in zip(axes, kinds, strict=True):
        _panel(panel, [case for case in cases if case["kind"] == kind and case["fraction"] > 0])
        panel.set_title(_TITLES[kind], fontsize=9)
    axes[0].set_ylabel("speed-up against dense convolution")
    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "kernels", "svg.fonttype": "none"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _panel(panel, cases: Sequence[Case]) -> None:
    lines: dict[tuple[str, int, str], list[tuple[float, float]]] = defaultdict(list)
    for case in cases:
        lines[case["layer"], case["batch"], case["output"]].append(
            (case["fraction"], case["speedup"])
        )
    for (_, batch, output), points in lines.items():
        x, y = zip(*sorted(points), strict=True)
        colour = {1: "#b3cde3", 8: "#5b8db8", 32: "#08457e"}.get(batch, "#444444")
        style = "-" if output != "compact" else ":"
        panel.plot(x, y, style, color=colour, marker=".", linewidth=0.8, markersize=4)
    shares = np.geomspace(min(case["fraction"] for case in cases), 1, 50)
    panel.plot(shares, 1 / shares, "--", color="#c0392b", linewidth=1, label="1 / share computed")
    panel.axhline(1, color="#999999", linewidth=0.8)
    panel.set(xscale="log", yscale="log", xlabel="share of positions computed")
    panel.minorticks_off()
    panel.set_xticks([1 / 8, 1 / 4, 1 / 2, 1], ["1/8", "1/4", "1/2", "1"])
    panel.set_xlim(shares[0] / 1.1, 1.1)
    top = panel.get_ylim()[1]
    speeds = [speed for speed in (0.5, 1, 2, 4, 8, 16, 32) if speed <= top]
    panel.set_yticks(speeds, [f"{speed:g} x" for speed in speeds])
    panel.legend(fontsize=7, frameon=False)
