"""Curves over speed-up: kinds of masks, perforation and its baselines, whole networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.papers.perforated_cnn.experiments.tradeoff import METHODS
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.settings import rounded
from experiments.suite.comparison import Group

_KINDS = {
    "uniform": "layer5",
    "grid": "dense",
    "pooling-structure": "layer1",
    "impact": "sparse",
}
_METHODS = dict(zip(METHODS, ("sparse", "dense", "layer1"), strict=True))
_SPEED = "speed-up, x"


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str, **more):
    order = np.argsort(x)
    axes.plot(np.asarray(x)[order], np.asarray(y)[order], color=LIGHT[colour], marker="o",
              markersize=4, label=label, **more)  # fmt: skip


def single_layer(groups: Sequence[Group]) -> Figure | None:
    """Draws loss and error over the speed-up of one layer, one line per kind of mask."""
    stored = {}
    for group in groups:
        kind = group.records[0].experiment.partition("single-layer-")[2]
        arrays = group.records[0].arrays()
        if kind in _KINDS and "loss_increase" in arrays:
            stored[kind] = arrays
    if not stored:
        return None
    stored = {kind: stored[kind] for kind in _KINDS if kind in stored}
    quantities = (
        ("Increase of test error, points", "layer_speedup", "error_increase"),
        ("Increase of training loss, nats", "layer_speedup", "loss_increase"),
        ("Measured speed-up, x", "promised", "layer_speedup"),
    )
    svgs = []
    for title, x, y in quantities:
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for kind, arrays in stored.items():
                _line(drawn.axes, arrays[x], arrays[y], _KINDS[kind], kind.replace("-", " "))
            if y == "layer_speedup":
                most = max(float(arrays["promised"].max()) for arrays in stored.values())
                drawn.axes.plot([1, most], [1, most], color=LIGHT["muted"], linewidth=1.0)
                drawn.axes.set_xlabel("positions / computed positions")
            else:
                drawn.axes.set_xlabel("measured speed-up of the layer, x")
            axes_lib.legend_above(drawn.axes, columns=2 if len(stored) < 3 else 4)
        svgs.append(drawn.svg)
    data = {
        "columns": ["mask", "rate", "loss increase, nats", "error increase, points",
                    "layer speed-up, x", "promised, x"],
        "rows": [
            [kind, *(rounded(float(v)) for v in row)]
            for kind, a in stored.items()
            for row in zip(a["rate"], a["loss_increase"], a["error_increase"], a["layer_speedup"],
                           a["promised"], strict=True)
        ],
    }  # fmt: skip
    caption = (
        "One convolution, perforated at increasing rates without fine-tuning; all others are "
        "whole. The grey line is the theoretical speed-up."
    )
    return Figure("Kinds of masks", caption, tuple(svgs), data=data)


def tradeoff(group: Group) -> Figure | None:
    """Draws error over measured speed-up of perforation and its baselines."""
    arrays = group.records[0].arrays()
    error = group.values("error")
    if "speedup" not in arrays or not error:
        return None
    svgs = []
    for title, name in (("Test error after tuning, %", "tuned_error"),
                        ("Test error without tuning, %", "error")):  # fmt: skip
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for number, (method, colour) in enumerate(_METHODS.items()):
                chosen = arrays["method"] == number
                x, y = [1.0, *arrays["speedup"][chosen]], [error[0], *arrays[name][chosen]]
                _line(drawn.axes, x, y, colour, method)
            drawn.axes.set_xlabel(_SPEED)
            axes_lib.legend_above(drawn.axes)
        svgs.append(drawn.svg)
    data = {
        "columns": ["method", "setting", "speed-up, x", "fewer MACs, x", "error, %",
                    "tuned error, %"],
        "rows": [
            [METHODS[int(method)], str(setting), *(rounded(float(v)) for v in row)]
            for method, setting, *row in zip(
                arrays["method"], arrays["setting"], arrays["speedup"], arrays["macs_reduction"],
                arrays["error"], arrays["tuned_error"], strict=True)
        ],
    }  # fmt: skip
    caption = (
        "All curves start at the trained network. Perforation copies the values that it does not "
        "compute; a larger stride and smaller images give smaller maps."
    )
    return Figure("Perforation against its baselines", caption, tuple(svgs), data=data)


def whole_networks(groups: Sequence[Group]) -> Figure | None:
    """Draws measured speed-up over the reduction of multiplications, by network and batch."""
    rows = []
    for group in groups:
        network = group.records[0].experiment.split(".")[2].split("-")[0]
        reduction = group.values("macs_reduction")
        for name in group.records[0].metrics:
            prefix, _, batch = name.partition("_batch")
            if prefix == "speedup" and batch and reduction:
                rows.append((network, int(batch), reduction[0], group.values(name)[0]))
    if not rows:
        return None
    rows = sorted(dict.fromkeys(rows))
    batches = sorted({batch for _, batch, _, _ in rows})
    svgs = []
    for batch in batches:
        with panel(f"Speed-up at batch {batch}, x", margins=(46, 14, 50, 42)) as drawn:
            for network, colour in (("alexnet", "sparse"), ("vgg16", "dense")):
                mine = [(m, s) for n, b, m, s in rows if (n, b) == (network, batch)]
                points = [(1.0, 1.0), *mine]
                if len(points) > 1:
                    x, y = zip(*points, strict=True)
                    _line(drawn.axes, x, y, colour, network)
            most = max(m for _, _, m, _ in rows)
            drawn.axes.plot([1, most], [1, most], color=LIGHT["muted"], linewidth=1.0,
                            label="equal")  # fmt: skip
            drawn.axes.set_xlabel("fewer multiplications, x")
            axes_lib.legend_above(drawn.axes)
        svgs.append(drawn.svg)
    data = {
        "columns": ["network", "batch", "fewer MACs, x", "speed-up, x"],
        "rows": [[n, b, rounded(m), rounded(s)] for n, b, m, s in rows],
    }
    caption = (
        "Forward passes of the whole and the perforated architecture, timed in turns with random "
        "weights on random images. Keep fractions follow a rule; masks are grids or regular grids."
    )
    return Figure("Speed-up of whole networks", caption, tuple(svgs), data=data)
