"""Static plan of a perforated convolution: kept positions and the source of each copy."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from jax.core import Tracer

from kernels._common.arrays import describe
from kernels._common.nearest import nearest_kept

# Seed that breaks the ties of the nearest-kept map if the caller passes no map.
_SEED = 0


class Grid(NamedTuple):
    """Kept positions that form a regular grid: every `step`-th row and column.

    Attributes:
        start: (row, column) of the first position.
        step: (vertical, horizontal).
        count: (rows, columns).
    """

    start: tuple[int, int]
    step: tuple[int, int]
    count: tuple[int, int]


class Plan:
    """Mask and nearest-kept map; compared and hashed by content, so usable as a static argument.

    Attributes:
        size: (H', W').
        positions: int32[P], flat indices of the kept positions, ascending.
        source: int32[H'·W'], index below P of the kept position that each position copies.
        grid: kept positions as a regular grid, or None.
    """

    def __init__(self, mask: np.ndarray, nearest: np.ndarray) -> None:
        self.size: tuple[int, int] = mask.shape  # pyright: ignore[reportAttributeAccessIssue]
        self.positions = np.flatnonzero(mask).astype(np.int32)
        compact = np.cumsum(mask.ravel(), dtype=np.int32) - 1
        self.source = compact[nearest.ravel()]
        self.grid = _regular_grid(mask)
        self._key = (self.size, self.positions.tobytes(), self.source.tobytes())
        self._hash = hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._key == other._key

    def __repr__(self) -> str:
        return f"Plan(size={self.size}, kept={self.kept})"

    @property
    def kept(self) -> int:
        """Returns the number of kept positions P."""
        return len(self.positions)

    @property
    def keep(self) -> float:
        """Returns the fraction of positions kept."""
        return self.kept / (self.size[0] * self.size[1])

    @property
    def mask(self) -> np.ndarray:
        """Returns the mask, bool[H', W']."""
        mask = np.zeros(self.size[0] * self.size[1], bool)
        mask[self.positions] = True
        return mask.reshape(self.size)


def make_plan(mask, nearest, size: tuple[int, int] | None = None) -> Plan:
    """Checks a mask and its nearest-kept map and returns their plan, cached by content.

    Args:
        mask: bool[H', W'], concrete.
        nearest: int[H', W'], flat index of the kept position that each position copies, its own
            at a kept position; None computes one with ties broken by a fixed seed.
        size: required (H', W') of the mask, or None.

    Raises:
        ValueError: the mask or the map is invalid; the message names it.
    """
    for name, array in (("mask", mask), ("nearest", nearest)):
        if isinstance(array, Tracer):
            raise ValueError(
                f"{name} is traced; perforated_conv needs a concrete NumPy array; for a run-time "
                "mask use masked_conv"
            )
        if not hasattr(array, "__array__") and not (name == "nearest" and array is None):
            kind = "bool" if name == "mask" else "int"
            raise ValueError(f"{name} is {describe(array)}; expected {kind}[H', W'], a NumPy array")
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"mask is {mask.dtype}{list(mask.shape)}; expected bool[H', W']")
    if size is not None and mask.shape != size:
        raise ValueError(f"mask has shape {mask.shape}; expected the output's {size}")
    if not mask.any():
        raise ValueError(f"mask of shape {mask.shape} keeps no position; expected at least one")
    if nearest is not None:
        nearest = np.asarray(nearest)
        if nearest.shape != mask.shape or nearest.dtype.kind not in "iu":
            raise ValueError(
                f"nearest is {nearest.dtype}{list(nearest.shape)}; expected int{list(mask.shape)}"
            )
        if nearest.min() < 0 or nearest.max() >= mask.size or not mask.flat[nearest].all():
            raise ValueError(
                "nearest points to positions that the mask does not keep; expected flat indices "
                "of kept positions"
            )
        kept = np.flatnonzero(mask)
        moved = kept[nearest.ravel()[kept] != kept]
        if moved.size:
            raise ValueError(
                f"nearest moves kept position {moved[0]} to {nearest.flat[moved[0]]}; expected "
                "nearest[kept] == kept, a kept position copies itself"
            )
        nearest = nearest.astype(np.int64)
    return _plan(mask.tobytes(), mask.shape, None if nearest is None else nearest.tobytes())


@functools.lru_cache(maxsize=512)
def _plan(mask_bytes: bytes, shape: tuple[int, int], nearest_bytes: bytes | None) -> Plan:
    mask = np.frombuffer(mask_bytes, bool).reshape(shape)
    if nearest_bytes is None:
        nearest = nearest_kept(mask, rng=np.random.default_rng(_SEED))
    else:
        nearest = np.frombuffer(nearest_bytes, np.int64).reshape(shape)
    return Plan(mask, nearest)


def _regular_grid(mask: np.ndarray) -> Grid | None:
    """Returns the kept positions as a regular grid, or None if they do not form one."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) * len(columns) != mask.sum():
        return None
    steps = []
    for kept in (rows, columns):
        gaps = np.unique(np.diff(kept))
        if len(gaps) > 1:
            return None
        steps.append(int(gaps[0]) if len(gaps) else 1)
    return Grid((int(rows[0]), int(columns[0])), (steps[0], steps[1]), (len(rows), len(columns)))
