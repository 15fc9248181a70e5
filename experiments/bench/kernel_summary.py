"""Summary of the kernel benchmark: means over layers beside their targets."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.shared.theory import REASON
from kernels._common.layer_shapes import LAYERS

# A case in its JSON form, so that tables are rendered from records alone.
Case = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Goal:
    """Target of the benchmark, one line of the summary.

    Attributes:
        name: Description of its cases.
        selects: Predicate of its cases.
        measure: "share" of the theoretical speed-up, or "speedup".
        at_least: Target of the mean.
        slowest: Target of the smallest speed-up, or None.
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


def _fixed_goal(
    kind: str, output: str, channels: int, at_least: float, slowest: float | None = None
) -> Goal:
    positions = {"grid": "regular grid", "random": "random positions"}[kind]
    written = {"nearest": "copies written", "compact": "compact"}[output]
    name = f"{positions}, {written}, at least {channels} channels"
    return Goal(name, _fixed(kind, output, channels), "share", at_least, slowest)


def _unit_goal(name: str, fraction: float, at_least: float) -> Goal:
    title = f"masked unit, {name}, {100 * fraction:g} % active"
    return Goal(title, _unit(name, fraction), "share", at_least)


GOALS = (
    _fixed_goal("grid", "nearest", 64, 0.80, 1.0),
    _fixed_goal("grid", "compact", 64, 0.90),
    _fixed_goal("random", "nearest", 96, 0.78, 1.0),
    _fixed_goal("random", "compact", 96, 0.78),
    _unit_goal("conv4", 0.5, 0.95),
    _unit_goal("conv4", 0.25, 0.93),
    _unit_goal("conv4", 0.125, 0.75),
    _unit_goal("conv3", 0.5, 0.90),
    _unit_goal("conv3", 0.25, 0.85),
    _unit_goal("conv3", 0.125, 0.65),
    Goal("masked unit, conv4, nothing active", _unit("conv4", 0.0), "speedup", 37.0),
    Goal("masked unit, conv3, nothing active", _unit("conv3", 0.0), "speedup", 15.0),
    Goal(
        "gradients for x and w, a quarter kept, at least 128 channels",
        lambda case: (
            case["kind"] == "backward" and case["channels"] >= 128 and case["fraction"] < 0.3
        ),
        "share",
        0.80,
    ),
    Goal(
        "all positions active",
        lambda case: case["kind"] in ("unit", "masked") and case["fraction"] == 1.0,
        "speedup",
        0.97,
    ),
)


def record(comparison: Any) -> Case:
    """Converts a comparison to JSON values."""
    values = dataclasses.asdict(comparison)
    finite = np.isfinite(comparison.theory)
    gradients = comparison.kind == "backward" and comparison.weights_dominate
    above = gradients and finite and comparison.share > 1
    why = f"{REASON} the weights are larger than the maps: dense gradients are bound by memory"
    return {
        **values,
        "note": why if above else "",
        "theory": round(comparison.theory, 4) if finite else None,
        "fraction": round(comparison.fraction, 4),
        "seconds": {name: round(value, 7) for name, value in values["seconds"].items()},
        "speedup": round(comparison.speedup, 3),
        "speedup_over_xla": round(comparison.speedup_over_xla, 3),
        "share": round(comparison.share, 3) if finite else None,
    }


def summary(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Returns one row per target that has cases: mean, least, count, target, met or not."""
    rows = []
    for goal in GOALS:
        chosen = [case for case in cases if goal.selects(case)]
        if not chosen:
            continue
        values = [case[goal.measure] for case in chosen]
        mean, slowest = statistics.fmean(values), min(case["speedup"] for case in chosen)
        met = mean >= goal.at_least and (goal.slowest is None or slowest >= goal.slowest)
        beside_xla = statistics.fmean(
            case["speedup_over_xla"] / (case["theory"] if goal.measure == "share" else 1)
            for case in chosen
        )
        rows.append(
            {
                "name": goal.name,
                "measure": goal.measure,
                "cases": len(chosen),
                "mean": round(mean, 3),
                "mean_beside_xla": round(beside_xla, 3),
                "least": round(min(values), 3),
                "slowest": round(slowest, 3),
                "at_least": goal.at_least,
                "met": met,
            }
        )
    return rows


def gigaflops(cases: Sequence[Case], *, channels: int = 64) -> dict[str, float]:
    """Returns the median throughput of each contender, in 1e9 needed FLOPs per second.

    Args:
        cases: Cases with fixed masks.
        channels: Least number of channels of a layer.
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
    """Returns (layer, batch, break-even share of active positions) for run-time masks."""
    swept: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for case in cases:
        if case["kind"] == "masked":
            point = (case["fraction"], case["speedup"])
            swept.setdefault((case["layer"], case["batch"]), []).append(point)
    return [(layer, batch, break_even(points)) for (layer, batch), points in swept.items()]


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """Interpolates the largest share of positions at which skipping is as fast as dense.

    Args:
        points: (share, speed-up) of one layer and batch.

    Returns:
        The share; that of the last point if skipping is not slower there, None if it is slower at
        every point.
    """
    points = sorted(points)
    if points[-1][1] >= 1:
        return points[-1][0]
    for (low, faster), (high, slower) in zip(points[-2::-1], points[:0:-1], strict=True):
        if faster >= 1 > slower:
            return low + (high - low) * (faster - 1) / (faster - slower)
    return None
