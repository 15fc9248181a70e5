"""Calibration of a network for budgets: mean FLOPs at measured shifts, and its file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.halting.arguments import check_number, check_positive_integer
from adaptive_nets.halting.budget import SHIFT_LIMIT, BudgetCalibration
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object

# Shifts closer than this, relative to 1 + |δ|, are not told apart.
_CLOSEST = 1e-4


def calibrate_shifts(
    measure: Callable[[float], float],
    *,
    plain_flops: float,
    resolution: float = 0.02,
    evaluations: int = 64,
) -> BudgetCalibration:
    """Measures the cost of a network at shifts that divide its range of costs evenly.

    Bisects the largest gap between measured costs. The table holds measured values only.

    Args:
        measure: function δ -> mean FLOPs per image; non-increasing up to noise.
        plain_flops: FLOPs per image of the plain network.
        resolution: gap between costs at which to stop, relative to the range of costs.
        evaluations: largest number of calls of `measure`.

    Raises:
        UserError: `resolution` is outside (0, 1), `evaluations` is not a positive integer, or a
            cost is not a finite number above 0.
    """
    check_number("resolution", resolution, below=1)
    check_number("plain_flops", plain_flops)
    check_positive_integer("evaluations", evaluations)

    def cost(shift: float) -> float:
        flops = float(measure(shift))
        check_number(f"the cost at a shift of {shift:g}", flops)
        return flops

    found = {shift: cost(shift) for shift in (SHIFT_LIMIT, -SHIFT_LIMIT)}
    smallest = resolution * (found[-SHIFT_LIMIT] - found[SHIFT_LIMIT])
    while len(found) < evaluations:
        order = sorted(found, reverse=True)
        gaps = [
            (found[low] - found[high], high, low)
            for high, low in itertools.pairwise(order)
            if high - low > _CLOSEST * (1 + min(abs(high), abs(low)))
        ]
        gap, high, low = max(gaps, default=(0.0, 0.0, 0.0))
        if gap <= smallest:
            break
        # Between δ of 10⁴ and 0 the interesting shifts are the small ones.
        middle = math.sinh((math.asinh(high) + math.asinh(low)) / 2)
        found[middle] = cost(middle)
    return _increasing(found, plain_flops)


def _increasing(found: dict[float, float], plain_flops: float) -> BudgetCalibration:
    """Collects measured costs from the cheapest on, without those that do not increase."""
    order = sorted(found, reverse=True)
    shifts, most = [order[0]], np.float32(found[order[-1]])
    for shift in order[1:]:
        before, flops = np.float32(found[shifts[-1]]), np.float32(found[shift])
        if before == most:
            break
        if flops == before:
            shifts[-1] = shift  # of equal costs the shift next to the following one
        elif before < flops <= most:
            shifts.append(shift)
    return _table(shifts, [found[shift] for shift in shifts], plain_flops)


def save_calibration(path: str | Path, calibration: BudgetCalibration) -> None:
    """Writes a calibration as JSON, atomically; it belongs beside the weights.

    Raises:
        OSError: the file cannot be written; an existing one is unchanged.
    """
    content = {name: np.asarray(value).tolist() for name, value in calibration._asdict().items()}
    write_json_atomically(path, content)


def load_calibration(path: str | Path) -> BudgetCalibration:
    """Reads a calibration from `save_calibration`.

    Raises:
        UserError: the file cannot be read, or holds no calibration.
    """
    remedy = "calibrate the network again"
    content = read_json_object(
        Path(path),
        remedy=remedy,
        entries={"shifts": list, "flops": list, "plain_flops": (int, float)},
    )
    try:
        table = _table(content["shifts"], content["flops"], content["plain_flops"])
    except (TypeError, ValueError):
        table = None
    if table is None or not _is_table(table):
        raise UserError(
            f"{path} is damaged: expected as many decreasing shifts as increasing flops; {remedy}"
        )
    return table


def _table(shifts: Any, flops: Any, plain_flops: Any) -> BudgetCalibration:
    columns: Any = (np.asarray(values, np.float32) for values in (shifts, flops, plain_flops))
    return BudgetCalibration(*columns)


def _is_table(table: BudgetCalibration) -> bool:
    shifts, flops = np.asarray(table.shifts), np.asarray(table.flops)
    return (
        shifts.ndim == 1
        and shifts.shape == flops.shape
        and shifts.size > 0
        and bool(np.isfinite(shifts).all() and np.isfinite(flops).all())
        and bool((np.diff(shifts) < 0).all() and (np.diff(flops) > 0).all())
        and bool(flops[0] > 0 and 0 < table.plain_flops < math.inf)
    )
