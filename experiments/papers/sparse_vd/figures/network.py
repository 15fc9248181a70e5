"""Figures of the trained network."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from experiments.papers.sparse_vd.configs.parameterisation import AT_EPOCHS
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.pictures import pixel_map, weight_grid
from experiments.report.settings import Setting, rounded
from experiments.suite.groups import Group
from experiments.suite.records import mean_and_deviation
from experiments.suite.registry import load_paper


def _threshold(group: Group) -> float:
    return group.records[0].config["variational"]["threshold"]


def _arrays(group: Group, names: tuple[str, ...]) -> list[dict[str, np.ndarray]]:
    """Returns the arrays of every seed that has all of the names."""
    stored = [record.arrays() for record in group.records]
    return [arrays for arrays in stored if all(name in arrays for name in names)]


def _mark_threshold(axes: Axes, threshold: float, text: str = "") -> None:
    axes.axvline(threshold, color=LIGHT["ink"], linewidth=1.0, linestyle=(0, (3, 2)))
    axes.annotate(
        text, (threshold, 0.93), xycoords=("data", "axes fraction"), xytext=(5, 0),
        textcoords="offset points", color=LIGHT["muted"], size=11,
    )  # fmt: skip


def sparsity_per_layer(setting: Setting) -> Figure | None:
    """Draws the sparsity of every layer after training beside the paper's values."""
    group, experiment = setting.main, setting.main_role.experiment
    if group is None:
        return None
    paper = load_paper(experiment.paper).rows[experiment.row]
    layers = sorted(
        name
        for name in group.records[0].metrics
        if name.startswith("sparsity.") and name not in AT_EPOCHS
    )
    rows = [
        (name.partition(".")[2] or "all", *mean_and_deviation(values), paper.number(name))
        for name in (*layers, "sparsity")
        if (values := group.values(name))
    ]
    if not rows:
        return None
    size = (400, 84 + 38 * len(rows))
    with panel("Sparsity per layer, %", size=size, margins=(46, 92, 50, 26)) as drawn:
        axes = drawn.axes
        bars = (
            ("ours", LIGHT["sparse"], LIGHT["ink"], -0.19, [(m, d) for _, m, d, _ in rows]),
            ("paper", LIGHT["muted"], LIGHT["muted"], 0.19, [(p, 0.0) for *_, p in rows]),
        )
        for label, colour, ink, offset, values in bars:
            there = [(i + offset, v, d) for i, (v, d) in enumerate(values) if v is not None]
            axes.barh([y for y, *_ in there], [v for _, v, _ in there], 0.34,
                      color=colour, label=label)  # fmt: skip
            for y, value, deviation in there:
                spread = f" ± {deviation:.1g}" if deviation else ""
                text = axes_lib.percentage(value) + spread
                axes.text(value + 1.5, y, text, va="center", color=ink)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.grid(visible=False)
        axes_lib.legend_above(axes)
    data = {
        "columns": ["layer", "ours, %", "standard deviation", "paper, %"],
        "rows": [[name, rounded(m), rounded(d), theirs] for name, m, d, theirs in rows],
    }
    caption = "Share of removed weights; biases do not count."
    if paper.number("sparsity") is None:
        caption += " The paper reports no sparsity over all layers."
    return Figure("Sparsity after training", caption, (drawn.svg,), data=data)


def threshold_sweep(setting: Setting) -> Figure | None:
    """Draws test error and sparsity of the pruned network over the threshold on log α."""
    names = ("sweep_threshold", "sweep_error", "sweep_sparsity")
    stored = _arrays(setting.main, names) if setting.main else []
    if setting.main is None or not stored:
        return None
    thresholds, errors, sparsities = (np.mean([a[n] for a in stored], axis=0) for n in names)
    dense = setting.beside.values("error") if setting.beside else []
    used, colour = _threshold(setting.main), setting.main_role.colour
    with panel("Test error, %", margins=(46, 14, 50 if dense else 30, 42)) as left:
        left.axes.plot(thresholds, errors, color=colour, marker="o", markersize=4,
                       label=setting.main_role.label)  # fmt: skip
        if dense:
            left.axes.axhline(mean_and_deviation(dense)[0], color=setting.beside_role.colour,
                              label=setting.beside_role.label)  # fmt: skip
            axes_lib.legend_above(left.axes)
        left.axes.set_ylim(0, min(1.35 * max(*errors, *dense, 0.1), 103))
        _mark_threshold(left.axes, used, f"used: {used:g}")
        left.axes.set_xlabel("threshold on log α")
    with panel("Sparsity, %") as right:
        full = axes_lib.sparsity_axis(right.axes, sparsities.tolist())
        shown = [min(axes_lib.nines(s), full) for s in sparsities]
        right.axes.plot(thresholds, shown, color=colour, marker="o", markersize=4)
        _mark_threshold(right.axes, used)
        right.axes.set_xlabel("threshold on log α")
    columns = (thresholds, errors, sparsities)
    data = {
        "columns": ["threshold", "test error, %", "sparsity, %"],
        "rows": [[rounded(v) for v in row] for row in zip(*columns, strict=True)],
    }
    caption = (
        "The trained network, pruned at other thresholds without further training. Where the "
        "lines are flat, the exact threshold does not matter."
    )
    return Figure("Pruning threshold", caption, (left.svg, right.svg), data=data)


def log_alpha_histogram(setting: Setting) -> Figure | None:
    """Draws histograms of log α over weights, one panel per layer."""
    group = setting.main
    stored = _arrays(group, ("log_alpha_edges",)) if group else []
    if group is None or not stored:
        return None
    edges, used = stored[0]["log_alpha_edges"], _threshold(group)
    names = sorted(n for n in stored[0] if n.startswith("log_alpha."))
    counts = {n.partition(".")[2]: np.mean([a[n] for a in stored], axis=0) for n in names}
    panels = []
    for i, (layer, values) in enumerate(counts.items()):
        title = f"{layer}: weights per bin"
        with panel(title, size=(300, 210), margins=(44, 10, 30, 42)) as drawn:
            axes = drawn.axes
            axes_lib.log_axis(axes, 0.6, float(max(values.max(), 10)))
            # A bin belongs to the side of its left edge.
            first = int(np.searchsorted(edges[:-1], used))
            for part, colour in (
                (slice(first), setting.main_role.colour),
                (slice(first, None), LIGHT["muted"]),
            ):
                heights = np.maximum(values[part], 0.5)
                around = edges[part.start or 0 :][: len(heights) + 1]
                if heights.size:
                    axes.stairs(heights, around, baseline=0.5, fill=True, color=colour)
            axes.set_xlim(edges[0], edges[-1])
            _mark_threshold(axes, used, "removed" if i == 0 else "")
            axes.set_xlabel("log α")
        panels.append(drawn.svg)
    caption = (
        f"Weights left of the line at {used:g} are kept, those right of it are removed. The "
        f"outermost bins include values beyond ±{edges[-1]:g}. The vertical axes are logarithmic, "
        "since one group can be far larger than the other."
    )
    data = {
        "columns": ["from log α", "to log α", *counts],
        "rows": [
            [rounded(v) for v in row]
            for row in zip(edges[:-1], edges[1:], *counts.values(), strict=True)
        ],
    }
    return Figure("Distribution of dropout rates", caption, tuple(panels), data=data)


def first_layer(setting: Setting) -> Figure | None:
    """Draws the weights of the first layer as images."""
    pictures, seeds = [], set()
    for role, group in setting.members:
        arrays = group.records[0].arrays()
        if "first_layer" in arrays:
            noun = "units" if "pixel_weights" in arrays else "filters"
            pictures.append(weight_grid(role.label, arrays["first_layer"], what=noun))
            seeds.add(group.records[0].seed)
    if not pictures:
        return None
    caption = (
        "Incoming weights of the units or filters with the largest norms, in descending order, for "
        f"seed {', '.join(map(str, sorted(seeds)))}. Zero is white. Every network has its own "
        "scale, which saturates at the ends. The values are in arrays.npz of the run "
        "(first_layer)."
    )
    return Figure("First layer", caption, pictures=tuple(pictures))


def pixel_weights(setting: Setting) -> Figure | None:
    """Draws the number of weights kept per input pixel."""
    group = setting.main
    arrays = group.records[0].arrays() if group else {}
    if group is None or "pixel_weights" not in arrays:
        return None
    counts = arrays["pixel_weights"]
    seed = group.records[0].seed
    caption = f"Weights of the first layer kept by pruning, per input pixel, for seed {seed}."
    dense = setting.beside.records[0].arrays().get("pixel_weights") if setting.beside else None
    if dense is not None:
        low, high = int(dense.min()), int(dense.max())
        kept = f"{low}" if low == high else f"{low} to {high}"
        caption += f" The {setting.beside_role.label} network has {kept} at every pixel."
    data = {
        "columns": [f"x{i}" for i in range(counts.shape[1])],
        "rows": counts.tolist(),
    }
    picture = pixel_map(setting.main_role.label, counts)
    return Figure("Input pixels in use", caption, pictures=(picture,), data=data)


def file_size(setting: Setting) -> Figure | None:
    """Draws the file size before and after pruning."""
    group = setting.main
    sizes = [group.values(n) for n in ("dense_file_size", "file_size")] if group else []
    if group is None or not all(sizes):
        return None
    before, after = (mean_and_deviation(s)[0] / 1000 for s in sizes)
    with panel("File on disk, kB", size=(400, 130), margins=(62, 118, 34, 14)) as drawn:
        axes = drawn.axes
        axes.barh([0], [before], 0.62, color=LIGHT["dense"])
        axes.barh([1], [after], 0.62, color=LIGHT["sparse"])
        words = (f"{before:,.1f}", f"{after:,.1f} ({before / after:.3g} x smaller)")
        for y, (x, text) in enumerate(zip((before, after), words, strict=True)):
            axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center")
        axes.set_yticks([0, 1], ["dense", "pruned"])
        axes.invert_yaxis()
        axes.set_xlim(0, before)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.grid(visible=False)
    ratio = group.values("compression")
    caption = "The same network stored densely and sparsely (safetensors, 1 kB is 1,000 bytes)."
    if ratio:
        caption += (
            f" The file shrinks by less than the number of weights "
            f"({mean_and_deviation(ratio)[0]:,.0f} x), since it also holds the positions of the "
            "kept weights, the biases and the input normalisation."
        )
    data = {
        "columns": ["file", "kB"],
        "rows": [["dense", rounded(before)], ["pruned", rounded(after)]],
    }
    return Figure("File size", caption, (drawn.svg,), data=data)
