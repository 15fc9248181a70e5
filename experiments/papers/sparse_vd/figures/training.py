"""Figures of quantities over training."""

from __future__ import annotations

from matplotlib.axes import Axes

from experiments.report import axes as axes_lib
from experiments.report.charts import LAYERS, LIGHT, Figure, panel
from experiments.report.settings import Curve, Setting, curve, curve_data, timing_of
from experiments.suite.groups import Group
from experiments.suite.records import mean_and_deviation
from experiments.suite.registry import load_paper


def learning_curves(setting: Setting) -> Figure | None:
    """Draws negative log-likelihood and test error of both methods over training."""
    panels, data = [], []
    for title, parts in (
        (
            "Negative log-likelihood, nats",
            (("test", "test/nll", "-", 1.0), ("training", "train/nll", ":", 1.0)),
        ),
        ("Test error, %", (("test", "test/error", "-", 100.0),)),
    ):
        found = [
            (f"{role.label}, {part}", role.colour, style, values)
            for role, group in setting.members
            for part, name, style, scale in parts
            if (values := curve(group, name, scale=scale))
        ]
        positive = [v for *_, c in found for v in (*c.low, *c.high) if v > 0]
        if not positive:
            continue
        with panel(title, margins=(46, 14, 68 if len(found) > 2 else 50, 42)) as drawn:
            axes_lib.log_axis(drawn.axes, min(positive), max(positive))
            for label, colour, style, values in found:
                axes_lib.draw_curve(drawn.axes, values, colour, label, linestyle=style)
            drawn.axes.set_xlim(0, max(c.epochs[-1] for *_, c in found))
            drawn.axes.set_xlabel("epoch")
            axes_lib.legend_above(drawn.axes, columns=2)
        panels.append(drawn.svg)
        data += [(f"{title}: {label}", values) for label, _, _, values in found]
    if not panels:
        return None
    caption = (
        "Test: all test images, without noise. Training: mean over the steps since the previous "
        "point, with the noise of training. The vertical axes are logarithmic."
    )
    return Figure("Learning curves", caption, tuple(panels), data=curve_data(data))


def _warm_up(group: Group) -> tuple[float, float]:
    """Returns start and end of the warm-up of the divergence, epochs."""
    record = group.records[0]
    timing, values = timing_of(record), record.config["variational"]
    start, end = (timing.steps(values[name]) for name in ("kl_start", "kl_full"))
    return start / timing.steps_per_epoch, end / timing.steps_per_epoch


def _shade(axes: Axes, start: float, end: float) -> None:
    axes.axvspan(start, end, color=LIGHT["shade"], linewidth=0, zorder=0)
    axes.annotate(
        "divergence warms up",
        (start, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        color=LIGHT["muted"],
        size=11,
        annotation_clip=False,
    )


def _sparsity_panel(group: Group, *, layers: bool) -> tuple[str, list[tuple[str, Curve]]]:
    """Draws a panel of sparsity over training; both results are empty if it was not logged."""
    names = [n for n in sorted(group.records[0].history) if n.startswith("sparsity/")]
    found = [(n.partition("/")[2], curve(group, n, scale=100.0)) for n in names if layers]
    found.append(("all", curve(group, "sparsity", scale=100.0)))
    series = [(name, c) for name, c in found if c is not None]
    if not series:
        return "", []
    with panel("Sparsity, %", margins=(50, 92 if layers else 14, 46, 42)) as drawn:
        full = axes_lib.sparsity_axis(drawn.axes, [v for _, c in series for v in c.high])
        drawn.axes.set_xlim(0, series[-1][1].epochs[-1])
        _shade(drawn.axes, *_warm_up(group))
        ends = []
        for i, (name, values) in enumerate(series):
            is_all = name == "all"
            colour = LIGHT["sparse"] if is_all else LIGHT[LAYERS[i % len(LAYERS)]]
            mean, low, high = (
                tuple(min(axes_lib.nines(v), full) for v in part)
                for part in (values.mean, values.low, values.high)
            )
            shown = Curve(values.epochs, mean, low, high)
            axes_lib.draw_curve(drawn.axes, shown, colour, linewidth=2.6 if is_all else 1.4)
            ends.append((mean[-1], f"{name} {axes_lib.percentage(values.mean[-1])}", colour))
        if layers:
            axes_lib.label_ends(drawn.axes, ends)
        drawn.axes.set_xlabel("epoch")
    return drawn.svg, series


def _sparsity_caption(group: Group) -> str:
    start, end = _warm_up(group)
    threshold = group.records[0].config["variational"]["threshold"]
    return (
        f"Sparsity is the share of weights with log α ≥ {threshold:g}. Its axis is logarithmic in "
        "the share of weights left, so that 90, 99 and 99.9 % are evenly spaced. The weight of "
        f"the divergence rises linearly from epoch {start:.3g} to epoch {end:.3g} (shaded)."
    )


def sparsity_over_training(setting: Setting) -> Figure | None:
    """Draws the sparsity of every layer and of the whole network over training."""
    if setting.main is None:
        return None
    svg, series = _sparsity_panel(setting.main, layers=True)
    if not svg:
        return None
    data = curve_data([(f"sparsity of {name}, %", c) for name, c in series])
    caption = _sparsity_caption(setting.main)
    return Figure("Sparsity over training", caption, (svg,), data=data)


def random_labels(setting: Setting) -> Figure | None:
    """Draws training accuracy and sparsity over training on random labels."""
    panels, data = [], []
    with panel("Training accuracy, %", margins=(46, 22, 50, 42)) as drawn:
        for role, group in setting.members:
            errors = curve(group, "train/error", scale=100.0)
            if errors is None:
                continue
            mean, low, high = (
                tuple(100 - v for v in part) for part in (errors.mean, errors.high, errors.low)
            )
            values = Curve(errors.epochs, mean, low, high)
            axes_lib.draw_curve(drawn.axes, values, role.colour, role.label)
            data.append((f"training accuracy of {role.label}, %", values))
            after, end = group.values("train_accuracy"), values.epochs[-1]
            if after:
                reached = mean_and_deviation(after)[0]
                drawn.axes.plot(end, reached, "o", color=role.colour, clip_on=False, zorder=4)
                data.append((f"after training, without noise, {role.label}, %",
                             Curve((end,), (reached,), (min(after),), (max(after),))))  # fmt: skip
            experiment = role.experiment
            theirs = load_paper(experiment.paper).rows[experiment.row].number("train_accuracy")
            if theirs is not None:
                drawn.axes.plot(
                    end, theirs, "D", color=role.colour, markersize=9,
                    fillstyle="none", clip_on=False, zorder=3,
                )  # fmt: skip
        drawn.axes.set_ylim(0, 106)
        drawn.axes.set_yticks(range(0, 101, 20))
        drawn.axes.set_xlim(0, max([c.epochs[-1] for _, c in data], default=1.0))
        drawn.axes.set_xlabel("epoch")
        if data:
            axes_lib.legend_above(drawn.axes)
    if not data:
        return None
    panels.append(drawn.svg)
    caption = (
        "Training labels are random, so only memorising fits them. Lines: mean over the steps "
        "since the previous point, with the noise of training. Dots: all training images after "
        "training, without noise. Diamonds: the paper."
    )
    if setting.main is not None:
        svg, series = _sparsity_panel(setting.main, layers=False)
        if svg:
            panels.append(svg)
            data += [(f"sparsity of {name}, %", c) for name, c in series]
            caption += f" {_sparsity_caption(setting.main)}"
    return Figure("Memorising random labels", caption, tuple(panels), data=curve_data(data))
