"""Tile sizes of the Pallas kernels: given, else tuned for this kind of device, else a heuristic."""

from __future__ import annotations

import dataclasses

from kernels._common import tuned

MEBIBYTE = 1 << 20
LANES = 128
"""Elements of 32 bits in one row of a TPU register."""


@dataclasses.dataclass(frozen=True)
class TileConfig:
    """How a kernel divides its work. A field that an implementation has no use for is ignored.

    Attributes:
        block_rows: output positions computed by one program.
        block_outputs: output channels computed by one program.
        block_channels: input channels of one step of the reduction (Triton).
        num_warps: of one program (Triton).
        num_stages: loads in flight (Triton).
    """

    block_rows: int
    block_outputs: int
    block_channels: int = 64
    num_warps: int = 4
    num_stages: int = 3

    def __post_init__(self):
        """Raises ValueError where a field is not a positive integer."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} is {value!r}; expected a positive integer")


@dataclasses.dataclass(frozen=True)
class Problem:
    """Sizes on which the choice of a tile depends.

    Attributes:
        dtype: name of the inputs' dtype.
        rows: output positions R.
        taps: kernel taps T.
        channels: input channels of one group.
        outputs: output channels of one group.
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
        """Name in a tuned table; the number of rows counts by its power of two."""
        rows = 1 << max(self.rows - 1, 0).bit_length()
        return (
            f"{self.dtype} R<={rows} T={self.taps} C={self.channels} O={self.outputs} "
            f"G={self.groups}"
        )


def choose_tile(
    problem: Problem, *, op: str, implementation: str, device_kind: str, tile: TileConfig | None
) -> TileConfig:
    """The tile to use: `tile` itself, else the tuned one, else the heuristic's.

    Args:
        problem: sizes.
        op: whose table is read, "perforated_conv" or "masked_conv".
        implementation: "pallas_triton" or "mosaic_tpu".
        device_kind: the maker's name of the device.
        tile: the caller's wish, or None.
    """
    if tile is not None:
        return tile
    found = tuned.lookup(device_kind, op, implementation, problem.key)
    if found is not None:
        return TileConfig(**found)
    return HEURISTICS[implementation](problem)


def triton_heuristic(problem: Problem) -> TileConfig:
    """Powers of two that fill a GPU of about a hundred multiprocessors; not measured.

    The accumulator takes block_rows·block_outputs/(32·num_warps) registers of a thread, 128 at
    most here; the shared memory of the loads in flight stays under 100 KB.
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
    """Windows of up to 256 rows gathered in 6 MiB of VMEM, weights in blocks of 3 MiB."""
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
    """Channels of one group as a TPU kernel stores them: whole rows of 128 words of 32 bits."""
    unit = 2 * LANES if dtype == "bfloat16" else LANES
    return -(-channels // unit) * unit


HEURISTICS = {"pallas_triton": triton_heuristic, "mosaic_tpu": tpu_heuristic}


def _power_of_two(size: int, smallest: int, largest: int) -> int:
    return min(max(1 << max(size - 1, 0).bit_length(), smallest), largest)
