"""Curves over speed-up: kinds of masks, perforation and its baselines, whole networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.papers.perforated_cnn.experiments.tradeoff import METHODS
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.settings import rounded
from experiments.suite.groups import Group

# Kind of mask -> colour and label.
_KINDS = {
    "uniform": ("layer5", "uniform"),
    "grid": ("dense", "grid"),
    "pooling": ("layer1", "pooling structure"),
    "regular": ("layer1", "regular"),
    "impact": ("sparse", "impact"),
}
_METHODS = dict(zip(METHODS, ("sparse", "dense", "layer1"), strict=True))
_SPEED = "speed-up, x"


def _line(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    colour: str,
    label: str,
    deviation: Sequence[float] | None = None,
) -> None:
    """Draws a curve with error bars of one standard deviation where it is known."""
    order = np.argsort(x)
    bars = None if deviation is None else np.nan_to_num(np.asarray(deviation)[order])
    axes.errorbar(np.asarray(x)[order], np.asarray(y)[order], yerr=bars, color=LIGHT[colour],
                  marker="o", markersize=4, capsize=2, elinewidth=1.0, label=label)  # fmt: skip


def single_layer(groups: Sequence[Group]) -> Figure | None:
    """Draws loss and error over the speed-up of one layer, one line per kind of mask."""
    stored = {}
    for group in groups:
        kind = group.records[0].config.get("layer", {}).get("kind")
        arrays = group.records[0].arrays()
        if kind in _KINDS and "loss_increase" in arrays:
            stored[kind] = arrays
    if not stored:
        return None
    stored = {kind: stored[kind] for kind in _KINDS if kind in stored}
    quantities = (
        ("Increase of test error, points", "layer_speedup", "error_increase", "error_deviation"),
        ("Increase of training loss, nats", "layer_speedup", "loss_increase", "loss_deviation"),
        ("Measured speed-up, x", "promised", "layer_speedup", ""),
    )
    svgs = []
    for title, x, y, deviation in quantities:
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for kind, arrays in stored.items():
                _line(drawn.axes, arrays[x], arrays[y], *_KINDS[kind], arrays.get(deviation))
            if y == "layer_speedup":
                most = max(float(arrays["promised"].max()) for arrays in stored.values())
                drawn.axes.plot([1, most], [1, most], color=LIGHT["muted"], linewidth=1.0)
                drawn.axes.set_xlabel("positions / computed positions")
            else:
                drawn.axes.set_xlabel("measured speed-up of the layer, x")
            axes_lib.legend_above(drawn.axes, columns=2 if len(stored) < 3 else 4)
        svgs.append(drawn.svg)
    draws = {kind: int(arrays.get("draws", 1)) for kind, arrays in stored.items()}
    data = {
        "columns": ["mask", "draws", "rate", "loss increase, nats", "error increase, points",
                    "error deviation, points", "layer speed-up, x", "promised, x"],
        "rows": [
            [
                _KINDS[kind][1], draws[kind],
                *(rounded(float(v)) if np.isfinite(v) else None for v in row),
            ]
            for kind, a in stored.items()
            for row in zip(
                a["rate"], a["loss_increase"], a["error_increase"],
                a.get("error_deviation", np.full(len(a["rate"]), np.nan)), a["layer_speedup"],
                a["promised"], strict=True)
        ],
    }  # fmt: skip
    images = groups[0].records[0].dataset["test"]
    caption = (
        "One convolution, perforated at increasing rates without fine-tuning; all others are "
        f"whole. {_masks(draws.values())} Errors are of {images:,} test images. The grey line is "
        "the theoretical speed-up."
    )
    return Figure("Kinds of masks", caption, tuple(svgs), data=data)


def _masks(draws: Iterable[int]) -> str:
    """Returns a sentence on the number of masks of a point."""
    numbers = sorted(set(draws))
    if numbers == [1]:
        return "Every point is one mask."
    said = " or ".join(map(str, numbers))
    return f"Every point is the mean of {said} masks, bars are one standard deviation."


def tradeoff(group: Group) -> Figure | None:
    """Draws error over measured speed-up of perforation and its baselines."""
    arrays = group.records[0].arrays()
    error = group.values("error")
    if "speedup" not in arrays or not error:
        return None
    rows = _settings(arrays)
    control = arrays.get("control_error", np.array(error))
    starts = {"tuned_error": control, "error": np.array(error[:1])}
    svgs = []
    for title, name in (("Test error after tuning, %", "tuned_error"),
                        ("Test error without tuning, %", "error")):  # fmt: skip
        with panel(title, margins=(46, 14, 50, 42)) as drawn:
            for method, colour in _METHODS.items():
                mine = [row for row in rows if row["method"] == method]
                if not mine:
                    continue
                _line(
                    drawn.axes,
                    [1.0, *(row["speedup"].mean() for row in mine)],
                    [starts[name].mean(), *(row[name].mean() for row in mine)],
                    colour,
                    method,
                    [_deviation(starts[name]), *(_deviation(row[name]) for row in mine)],
                )
            drawn.axes.set_xlabel(_SPEED)
            axes_lib.legend_above(drawn.axes)
        svgs.append(drawn.svg)
    whole = [1.0, 1.0, error[0], control.mean(), _deviation(control)]
    data = {
        "columns": ["method", "setting", "draws", "speed-up, x", "fewer MACs, x", "error, %",
                    "tuned error, %", "deviation, points"],
        "rows": [
            ["whole", "", len(control), *map(_finite, whole)],
            *(
                [row["method"], row["setting"], len(row["error"]),
                 *(_finite(row[name].mean())
                   for name in ("speedup", "macs_reduction", "error", "tuned_error")),
                 _finite(_deviation(row["tuned_error"]))]
                for row in rows
            ),
        ],
    }  # fmt: skip
    most = max(len(row["error"]) for row in rows)
    several = (
        f"Points of perforation and stride are means of {most} draws of masks or offsets, with "
        "bars of one standard deviation. " if most > 1 else ""
    )  # fmt: skip
    equal = (
        "All curves start at the whole network, which is tuned as long as every point. "
        if "control_error" in arrays
        else "All curves start at the trained network. "
    )
    caption = (
        f"{equal}{several}Perforation copies the values that it does not compute; a larger stride "
        "and smaller images give smaller maps."
    )
    return Figure("Perforation against its baselines", caption, tuple(svgs), data=data)


def _settings(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Groups the networks of the figure by method and setting; values are arrays over draws."""
    names = ("speedup", "macs_reduction", "error", "tuned_error")
    keys = [
        (METHODS[int(method)], str(setting))
        for method, setting in zip(arrays["method"], arrays["setting"], strict=True)
    ]
    return [
        {
            "method": method,
            "setting": setting,
            **{
                name: np.array(
                    [v for key, v in zip(keys, arrays[name], strict=True)
                     if key == (method, setting)]
                )
                for name in names
            },
        }
        for method, setting in dict.fromkeys(keys)
    ]  # fmt: skip


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _finite(value: float) -> float | None:
    return rounded(float(value)) if np.isfinite(value) else None


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
            drawn.axes.plot([1, most], [1, most], color=LIGHT["muted"], linewidth=1.0)
            drawn.axes.set_xlabel("fewer multiplications, x")
            axes_lib.legend_above(drawn.axes)
        svgs.append(drawn.svg)
    data = {
        "columns": ["network", "batch", "fewer MACs, x", "speed-up, x"],
        "rows": [[n, b, rounded(m), rounded(s)] for n, b, m, s in rows],
    }
    caption = (
        "Forward passes of the whole and the perforated architecture, timed in turns with random "
        "weights on random images. Keep fractions follow a rule. Masks of AlexNet are grids; those "
        "of VGG-16 are regular grids, which are not in the paper. The grey line is the reduction "
        "of multiplications."
    )
    return Figure("Speed-up of whole networks", caption, tuple(svgs), data=data)
