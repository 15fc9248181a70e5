"""Figure of the gradient noise of the multiplicative and the additive form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from experiments.papers.sparse_vd.configs.parameterisation import FORMS
from experiments.papers.sparse_vd.recorded_noise import (
    LEAST_WEIGHTS,
    OverRates,
    draws_of,
    layers_of,
    over_rates,
    variance_ratio,
)
from experiments.report import axes as axes_lib
from experiments.report.charts import LIGHT, Figure, panel
from experiments.report.settings import Curve, Role, Setting, curve, rounded
from experiments.suite.groups import Group

TITLE = "Gradient noise of the two forms"
_COLOURS = {"multiplicative": LIGHT["dense"], "additive": LIGHT["sparse"]}
_STYLES = {"multiplicative": ":", "additive": "-"}
_MARGINS = (54, 14, 68, 42)


def _label(form: str, role: Role) -> str:
    return f"{form} form, {role.label} run"


_Line = tuple[OverRates, str, str, str]
"""Values, label, colour and line style."""


def _rates_panel(title: str, lines: Sequence[_Line]) -> tuple[str, list[list]]:
    """Draws lines over log α; both results are empty if no bin has enough weights."""
    rows = [
        [title, label, rounded(float(x)), rounded(float(y))]
        for found, label, _, _ in lines
        for x, y in zip(found.middles, found.values, strict=True)
        if np.isfinite(y)
    ]
    positive = [row[-1] for row in rows if row[-1] > 0]
    if not positive:
        return "", []
    with panel(title, margins=_MARGINS) as drawn:
        axes_lib.log_axis(drawn.axes, min(positive), max(positive))
        for found, label, colour, style in lines:
            shown = np.where(found.values > 0, found.values, np.nan)
            drawn.axes.plot(found.middles, shown, style, color=colour, label=label)
        drawn.axes.set_xlabel("log α")
        axes_lib.legend_above(drawn.axes, columns=2)
    return drawn.svg, rows


def _forms_panel(
    members: list[tuple[Role, Group]], measure: str, title: str, layer: str
) -> tuple[str, list[list]]:
    """Draws a measure of both forms over log α."""
    lines = [
        (over_rates(group, measure, form, layer), _label(form, role), _COLOURS[form],
         _STYLES[role.label])
        for role, group in members
        if layer in layers_of(group)
        for form in FORMS
    ]  # fmt: skip
    return _rates_panel(f"{title}, {layer}", lines)


def _ratio_panel(members: list[tuple[Role, Group]], layer: str) -> tuple[str, list[list]]:
    """Draws the ratio of the variances over log α, for both kinds of noise."""
    lines = [
        (variance_ratio(group, layer, sampled=sampled), f"{name}, {role.label} run",
         LIGHT[colour], _STYLES[role.label])
        for role, group in members
        if layer in layers_of(group)
        for sampled, name, colour in (
            (False, "noise of training", "layer1"), (True, "sampled weights", "layer2")
        )
    ]  # fmt: skip
    return _rates_panel(f"Variance, multiplicative over additive, {layer}", lines)


def _training_panel(members: list[tuple[Role, Group]], layer: str) -> tuple[str, list[list]]:
    """Draws the median variance over training; both results are empty if it was not logged."""
    found: list[tuple[str, Role, Curve]] = [
        (form, role, values)
        for role, group in members
        for form in FORMS
        if (values := curve(group, f"gradient_variance/{form}/{layer}"))
    ]
    positive = [v for *_, c in found for v in (*c.low, *c.high) if v > 0]
    if not positive:
        return "", []
    title = f"Median variance over training, {layer}"
    with panel(title, margins=_MARGINS) as drawn:
        axes_lib.log_axis(drawn.axes, min(positive), max(positive))
        for form, role, values in found:
            axes_lib.draw_curve(
                drawn.axes, values, _COLOURS[form], _label(form, role),
                linestyle=_STYLES[role.label],
            )  # fmt: skip
        drawn.axes.set_xlim(0, max(c.epochs[-1] for *_, c in found))
        drawn.axes.set_xlabel("epoch")
        axes_lib.legend_above(drawn.axes, columns=2)
    rows = [
        [title, _label(form, role), rounded(x), rounded(y)]
        for form, role, c in found
        for x, y in zip(c.epochs, c.mean, strict=True)
    ]
    return drawn.svg, rows


def gradient_noise(setting: Setting) -> Figure | None:
    """Draws variance and signal-to-noise ratio of the gradient of θ over log α and over training.

    The first panels are those of `recorded_noise.PANELS`, of the layer with the most weights.
    """
    members = [(role, group) for role, group in setting.members if layers_of(group)]
    if not members:
        return None
    first, *others = layers_of(members[-1][1])
    drawn = [
        _forms_panel(members, "gradient_variance", "Variance of the gradient", first),
        _training_panel(members, first),
        _ratio_panel(members, first),
        _forms_panel(members, "gradient_snr", "Signal-to-noise ratio", first),
        *(_forms_panel(members, "gradient_variance", "Variance of the gradient", x)
          for x in others),
    ]  # fmt: skip
    if not all(svg for svg, _ in drawn[:3]):
        return None
    panels = tuple(svg for svg, _ in drawn if svg)
    data = {
        "columns": ["panel", "series", "log α or epoch", "value"],
        "rows": [row for _, rows in drawn for row in rows],
    }
    return Figure(TITLE, _caption(group for _, group in members), panels, data=data)


def _caption(groups: Iterable[Group]) -> str:
    draws = sorted({count for group in groups for count in draws_of(group)})
    return (
        "Gradient of the mean negative log-likelihood of one fixed training batch with respect to "
        "θ, over draws of the noise alone. Both forms are measured at the same posterior, in the "
        "networks that either form trained: solid with additive, dotted with multiplicative noise. "
        "Noise of training: local, one draw per output and example. Sampled weights: one draw per "
        "weight, as in the paper's argument. "
        f"Over log α: after training, {' or '.join(map(str, draws))} draws, medians over "
        f"the weights of a bin, if there are at least {LEAST_WEIGHTS}. Weights at the clip of "
        "log α, where there is one form only, and weights without any gradient are left out."
    )
