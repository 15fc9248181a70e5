"""Autotuning of tile sizes by measured time; runs only on request, never during training."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernels._common import tuned
from kernels._common.tiling import HEURISTICS, LANES, Problem, TileConfig

_SHARED_MEMORY = 200_000  # bytes per block at compute capability 9.0 and later, rounded down
_REGISTERS = 128  # maximum registers per thread for the accumulator


def candidates(problem: Problem, implementation: str) -> list[TileConfig]:
    """Lists distinct candidate tiles, the heuristic's tile first.

    Raises:
        ValueError: the implementation is unknown.
    """
    if implementation not in HEURISTICS:
        raise ValueError(
            f"implementation is {implementation!r}; expected one of {tuple(HEURISTICS)}"
        )
    others = _triton_candidates if implementation == "pallas_triton" else _tpu_candidates
    return list(dict.fromkeys([HEURISTICS[implementation](problem), *others(problem)]))


def autotune(
    problem: Problem,
    time: Callable[[TileConfig], float],
    *,
    op: str,
    implementation: str,
    device_kind: str,
    tiles: Sequence[TileConfig] | None = None,
    folder: Path | None = None,
) -> TileConfig:
    """Times tiles and writes the fastest one to the table of the device kind.

    Args:
        problem: sizes for which to choose a tile.
        time: tile -> seconds of one call. An exception is recorded and excludes the tile.
        op: "perforated_conv" or "masked_conv".
        implementation: "pallas_triton" or "mosaic_tpu".
        device_kind: `device_kind` of the device on which `time` measures.
        tiles: tiles to time; None for `candidates`.
        folder: directory of the tables; None for that of this package.

    Returns:
        The fastest tile.

    Raises:
        ValueError: no tile works; the message has the last reason.
    """
    trials: list[dict[str, Any]] = []
    best: tuple[float, TileConfig] | None = None
    for tile in candidates(problem, implementation) if tiles is None else tiles:
        trial: dict[str, Any] = {"tile": dataclasses.asdict(tile)}
        trials.append(trial)
        try:
            seconds = float(time(tile))
        except Exception as error:
            trial["error"] = f"{type(error).__name__}: {error}"[:500]
            continue
        trial["seconds"] = seconds
        if math.isfinite(seconds) and (best is None or seconds < best[0]):
            best = seconds, tile
    if best is None:
        reason = trials[-1].get("error", "no finite time") if trials else "no candidates"
        raise ValueError(f"no tile works for {problem.key} on {device_kind}: {reason}")
    table = tuned.read_table(device_kind, op, folder) or {
        "device_kind": device_kind,
        "implementations": {},
    }
    entry = {
        "tile": dataclasses.asdict(best[1]),
        "seconds": best[0],
        "versions": {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")},
        "candidates": trials,
    }
    table["implementations"].setdefault(implementation, {})[problem.key] = entry
    tuned.write_table(table, op, folder)
    return best[1]


def _triton_candidates(problem: Problem) -> list[TileConfig]:
    itemsize = 4 if problem.dtype == "float32" else 2
    tiles = []
    for rows, outputs, channels, warps, stages in itertools.product(
        (32, 64, 128), (32, 64, 128, 256), (32, 64), (4, 8), (2, 3, 4)
    ):
        loads = (rows + outputs) * channels * itemsize * (stages - 1)
        registers = rows * outputs // (32 * warps)
        too_wide = outputs >= 2 * max(problem.outputs, 32)
        too_deep = channels >= 2 * max(problem.channels, 32)
        if loads > _SHARED_MEMORY or not 8 <= registers <= _REGISTERS or too_wide or too_deep:
            continue
        tiles.append(TileConfig(rows, outputs, channels, warps, stages))
    return tiles


def _tpu_candidates(problem: Problem) -> list[TileConfig]:
    outputs = -(-problem.outputs // LANES) * LANES
    return [
        TileConfig(block_rows=rows, block_outputs=block)
        for rows in (32, 64, 128, 256, 512)
        for block in (128, 256, 512, 1024)
        if outputs % block == 0
    ]
