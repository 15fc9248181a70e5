"""Tile sizes of the Pallas kernels: explicit, else tuned for the device kind, else a heuristic."""

from __future__ import annotations

import dataclasses

from kernels._common import tuned
from kernels._common.dispatch import note_tuned_table
from kernels._common.geometry import positive_integer

MEBIBYTE = 1 << 20
LANES = 128
"""Number of 32-bit elements in one row of a TPU vector register."""


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """Tile sizes and launch parameters; an implementation ignores fields that it does not use.

    Attributes:
        block_rows: output positions per program.
        block_outputs: output channels per program.
        block_channels: input channels per step of the reduction (Triton).
        num_warps: warps per program (Triton).
        num_stages: pipeline stages of the loads (Triton).
    """

    block_rows: int
    block_outputs: int
    block_channels: int = 64
    num_warps: int = 4
    num_stages: int = 3

    def __post_init__(self):
        """Checks that every field is a positive integer."""
        for field in dataclasses.fields(self):
            value = positive_integer(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Problem size that determines the choice of a tile.

    Attributes:
        dtype: name of the inputs' dtype.
        rows: number of output positions R.
        taps: number of kernel taps T.
        channels: input channels per group.
        outputs: output channels per group.
        groups: number of groups.
    """

    dtype: str
    rows: int
    taps: int
    channels: int
    outputs: int
    groups: int = 1

    @property
    def key(self) -> str:
        """Returns the key in a tuned table; the number of rows is rounded up to a power of two."""
        rows = 1 << max(self.rows - 1, 0).bit_length()
        return (
            f"{self.dtype} R<={rows} T={self.taps} C={self.channels} O={self.outputs} "
            f"G={self.groups}"
        )


def choose_tile(
    problem: Problem, *, op: str, implementation: str, device_kind: str, tile: TileConfig | None
) -> TileConfig:
    """Returns `tile` if given, else the tuned tile, else the heuristic's tile.

    Args:
        problem: problem size.
        op: operation whose table is read, "perforated_conv" or "masked_conv".
        implementation: "pallas_triton" or "mosaic_tpu".
        device_kind: `device_kind` of the target.
        tile: explicit tile, or None.
    """
    if tile is not None:
        return tile
    found = tuned.lookup(device_kind, op, implementation, problem.key)
    if found is not None:
        note_tuned_table(str(tuned.table_path(device_kind, op).relative_to(tuned.FOLDER)))
        return TileConfig(**found)
    return HEURISTICS[implementation](problem)


def triton_heuristic(problem: Problem) -> TileConfig:
    """Returns power-of-two tiles for a GPU with about 100 multiprocessors; not tuned.

    The accumulator needs block_rows·block_outputs/(32·num_warps) registers per thread, at most 128
    here. The pipeline buffers need less than 100 KB of shared memory.
    """
    wide = problem.dtype == "float32"
    block_outputs = _power_of_two(problem.outputs, 16, 64 if wide else 128)
    block_rows = _power_of_two(problem.rows, 16, 64 if wide else 128)
    while block_outputs > 32 and _programs(problem, block_rows, block_outputs) < 128:
        if block_rows > 64 and block_rows >= block_outputs:
            block_rows //= 2
        else:
            block_outputs //= 2
    return TileConfig(
        block_rows=block_rows,
        block_outputs=block_outputs,
        block_channels=_power_of_two(problem.channels, 16, 32 if wide else 64),
        num_warps=8 if block_rows * block_outputs >= 128 * 128 else 4,
        num_stages=4,
    )


def _programs(problem: Problem, block_rows: int, block_outputs: int) -> int:
    rows, outputs = -(-problem.rows // block_rows), -(-problem.outputs // block_outputs)
    return rows * outputs * problem.groups


def tpu_heuristic(problem: Problem) -> TileConfig:
    """Returns a tile of up to 256 rows with 6 MiB of VMEM for windows and 3 MiB for weights."""
    padded = padded_channels(problem.dtype, problem.channels)
    itemsize = 2 if problem.dtype == "bfloat16" else 4
    per_row = 2 * problem.taps * padded * problem.groups * itemsize
    block_rows = 256
    while block_rows > 16 and (block_rows * per_row > 6 * MEBIBYTE or block_rows > problem.rows):
        block_rows //= 2
    outputs = -(-problem.outputs // LANES) * LANES
    block_outputs = min(outputs, 512)
    while block_outputs > LANES and (
        outputs % block_outputs or problem.taps * padded * block_outputs * itemsize > 3 * MEBIBYTE
    ):
        block_outputs -= LANES
    return TileConfig(block_rows=block_rows, block_outputs=block_outputs)


def padded_channels(dtype: str, channels: int) -> int:
    """Rounds the channels of a group up to whole TPU rows of 128 32-bit words."""
    unit = 2 * LANES if dtype == "bfloat16" else LANES
    return -(-channels // unit) * unit


HEURISTICS = {"pallas_triton": triton_heuristic, "mosaic_tpu": tpu_heuristic}


def _power_of_two(size: int, smallest: int, largest: int) -> int:
    return min(max(1 << max(size - 1, 0).bit_length(), smallest), largest)
