"""What the kernel benchmark's cases come to: means over layers, beside what is aimed at."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kernels._common.layer_shapes import LAYERS

# Cases are compared as the JSON record has them, so that a table can be made from a record alone.
Case = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Goal:
    """One line of the summary.

    Attributes:
        name: what is measured.
        selects: the cases that belong to it.
        measure: "share" of the theoretical speed-up, or "speedup".
        at_least: what the mean should reach.
        slowest: what no case should fall below in speed-up, or None.
    """

    name: str
    selects: Callable[[Case], bool]
    measure: str
    at_least: float
    slowest: float | None = None


def _fixed(kind: str, output: str, channels: int) -> Callable[[Case], bool]:
    return lambda case: (
        case["kind"] == kind
        and case["output"] == output
        and case["channels"] >= channels
        and case["fraction"] < 0.9
    )


def _unit(name: str, fraction: float) -> Callable[[Case], bool]:
    return lambda case: (
        case["kind"] == "unit"
        and case["layer"] == f"ResNet-101 {name}"
        and case["batch"] == 8
        and abs(case["fraction"] - fraction) < 0.01
    )


def _fixed_aim(
    kind: str, output: str, channels: int, at_least: float, slowest: float | None = None
) -> Goal:
    what = {"grid": "regular grid", "random": "random positions"}[kind]
    written = {"nearest": "copies written", "compact": "compact"}[output]
    name = f"{what}, {written}, {channels} channels and more"
    return Goal(name, _fixed(kind, output, channels), "share", at_least, slowest)


def _unit_aim(name: str, fraction: float, at_least: float) -> Goal:
    title = f"masked unit, {name}, {100 * fraction:g} % active"
    return Goal(title, _unit(name, fraction), "share", at_least)


GOALS = (
    _fixed_aim("grid", "nearest", 64, 0.80, 1.0),
    _fixed_aim("grid", "compact", 64, 0.90),
    _fixed_aim("random", "nearest", 96, 0.78, 1.0),
    _fixed_aim("random", "compact", 96, 0.78),
    _unit_aim("conv4", 0.5, 0.95),
    _unit_aim("conv4", 0.25, 0.93),
    _unit_aim("conv4", 0.125, 0.75),
    _unit_aim("conv3", 0.5, 0.90),
    _unit_aim("conv3", 0.25, 0.85),
    _unit_aim("conv3", 0.125, 0.65),
    Goal("masked unit, conv4, nothing active", _unit("conv4", 0.0), "speedup", 37.0),
    Goal("masked unit, conv3, nothing active", _unit("conv3", 0.0), "speedup", 15.0),
    Goal(
        "gradients for x and w, a quarter kept, 128 channels and more",
        lambda case: (
            case["kind"] == "backward" and case["channels"] >= 128 and case["fraction"] < 0.3
        ),
        "share",
        0.80,
    ),
    Goal(
        "everything active",
        lambda case: case["kind"] in ("unit", "masked") and case["fraction"] == 1.0,
        "speedup",
        0.97,
    ),
)


def record(comparison: Any) -> Case:
    """A comparison as JSON values."""
    values = dataclasses.asdict(comparison)
    finite = np.isfinite(comparison.theory)
    return {
        **values,
        "theory": round(comparison.theory, 4) if finite else None,
        "fraction": round(comparison.fraction, 4),
        "seconds": {name: round(value, 7) for name, value in values["seconds"].items()},
        "speedup": round(comparison.speedup, 3),
        "speedup_over_xla": round(comparison.speedup_over_xla, 3),
        "share": round(comparison.share, 3) if finite else None,
    }


def summary(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """One row per aim that has cases: mean, least, number of cases, aim, met or not."""
    rows = []
    for aim in GOALS:
        chosen = [case for case in cases if aim.selects(case)]
        if not chosen:
            continue
        values = [case[aim.measure] for case in chosen]
        mean, slowest = statistics.fmean(values), min(case["speedup"] for case in chosen)
        met = mean >= aim.at_least and (aim.slowest is None or slowest >= aim.slowest)
        beside_xla = statistics.fmean(
            case["speedup_over_xla"] / (case["theory"] if aim.measure == "share" else 1)
            for case in chosen
        )
        rows.append(
            {
                "name": aim.name,
                "measure": aim.measure,
                "cases": len(chosen),
                "mean": round(mean, 3),
                "mean_beside_xla": round(beside_xla, 3),
                "least": round(min(values), 3),
                "slowest": round(slowest, 3),
                "at_least": aim.at_least,
                "met": met,
            }
        )
    return rows


def gigaflops(cases: Sequence[Case], *, channels: int = 64) -> dict[str, float]:
    """Median speed of each contender, in 1e9 floating-point operations that were needed a second.

    Args:
        cases: with fixed masks.
        channels: layers with fewer are left out.
    """
    macs = {layer.label: layer.macs for layer in LAYERS}
    speeds: dict[str, list[float]] = {}
    for case in cases:
        if case["channels"] >= channels:
            dense = 2e-9 * macs[case["layer"]] * case["batch"]
            for name, seconds in case["seconds"].items():
                share = case["fraction"] if name == "ours" else 1.0
                speeds.setdefault(name, []).append(share * dense / seconds)
    return {name: statistics.median(values) for name, values in speeds.items()}


def break_evens(cases: Sequence[Case]) -> list[tuple[str, int, float | None]]:
    """(layer, batch, share of active positions) up to which a run-time mask pays, per layer."""
    swept: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for case in cases:
        if case["kind"] == "masked":
            point = (case["fraction"], case["speedup"])
            swept.setdefault((case["layer"], case["batch"]), []).append(point)
    return [(layer, batch, break_even(points)) for (layer, batch), points in swept.items()]


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Share of positions at which computing some is as fast as computing all, by interpolation.

    Args:
        points: (share, speed-up) of one layer and batch.

    Returns:
        The largest such share, that of the last point where skipping never loses; None where it
        always does.
    """
    points = sorted(points)
    if points[-1][1] >= 1:
        return points[-1][0]
    for (low, faster), (high, slower) in zip(points[-2::-1], points[:0:-1], strict=True):
        if faster >= 1 > slower:
            return low + (high - low) * (faster - 1) / (faster - slower)
    return None
