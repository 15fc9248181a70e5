"""Buckets: the few static shapes that photographs are padded to, and the order of their batches.

All images of a batch have the same shape, so a program is compiled once per bucket. Which bucket a
step has, and which images, is a function of the seed and the step alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from adaptive_nets.data.boxes.resizing import Resize
from adaptive_nets.runtime.errors import UserError

Shape = tuple[int, int]
"""(height, width), pixels."""


def bucket_shapes(resize: Resize, *, stride: int, aspects: Sequence[float] = ()) -> list[Shape]:
    """Returns shapes that hold every resized photograph: landscape and portrait.

    Args:
        resize: sizes of the photographs.
        stride: stride of the network, pixels; sides are multiples of it.
        aspects: long side / short side of further, smaller shapes, such as 4/3; each is one more
            landscape and one more portrait to compile, and less padding.

    Returns:
        Different shapes, the smallest first.

    Raises:
        UserError: the stride or an aspect is below 1.
    """
    if stride < 1:
        raise UserError(f"stride is {stride}; expected at least 1 pixel")
    for aspect in aspects:
        if not aspect >= 1:
            raise UserError(f"aspect of a bucket is {aspect}; expected long / short, at least 1")
    longest = resize.long / resize.short
    sides = []
    for aspect in {min(aspect, longest) for aspect in (*aspects, longest)}:
        # Rounded as `Resize.size` rounds, so that a photograph of this very aspect fits.
        long = min(resize.long, round(resize.short * aspect))
        sides.append(tuple(-(-side // stride) * stride for side in (resize.short, long)))
    shapes = {shape for short, long in sides for shape in ((short, long), (long, short))}
    return sorted(shapes, key=lambda shape: (shape[0] * shape[1], shape))


def choose_bucket(size: Shape, shapes: Sequence[Shape]) -> int:
    """Returns the first shape that holds a photograph of a size.

    Raises:
        ValueError: none does.
    """
    for number, shape in enumerate(shapes):
        if size[0] <= shape[0] and size[1] <= shape[1]:
            return number
    raise ValueError(f"image of {size} pixels; expected one that fits in one of {shapes}")


@functools.lru_cache(maxsize=2)
def _schedule(counts: tuple[int, ...]) -> np.ndarray:
    """Returns the bucket of each step of a round, and its rank in the bucket: int64[2, R].

    A round has as many steps of a bucket as the bucket has images, divided by their common divisor,
    so that all images are seen equally often; the steps of a bucket are spread evenly over it.
    """
    divisor = math.gcd(*counts)
    steps = [count // divisor for count in counts]
    bucket = np.repeat(np.arange(len(counts)), steps)
    rank = np.concatenate([np.arange(n) for n in steps])
    when = (rank + 0.5) / np.array(steps)[bucket]
    order = np.lexsort((bucket, when))
    return np.stack([bucket[order], rank[order]])


@functools.lru_cache(maxsize=8)
def _permutation(seed: int, bucket: int, turn: int, count: int) -> np.ndarray:
    order = np.random.default_rng((seed, bucket, turn)).permutation(count)
    order.flags.writeable = False
    return order


def training_example(
    counts: Sequence[int], *, seed: int, step: int, row: int, batch_size: int
) -> tuple[int, int, int]:
    """Returns the image of a row of a training batch.

    Each bucket's images come in one random permutation after the other, without gaps.

    Args:
        counts: number of images of each bucket; none is 0.
        seed: seed of the order.
        step: number of the batch.
        row: place in the batch.
        batch_size: images per batch.

    Returns:
        (bucket, place of the image in its bucket, number of earlier passes over the bucket).
    """
    schedule = _schedule(tuple(counts))
    turn, within = divmod(step, schedule.shape[1])
    bucket, rank = (int(value) for value in schedule[:, within])
    divisor = math.gcd(*counts)
    batch = turn * (counts[bucket] // divisor) + rank
    passes, place = divmod(batch * batch_size + row, counts[bucket])
    return bucket, int(_permutation(seed, bucket, passes, counts[bucket])[place]), passes


def evaluation_batches(counts: Sequence[int], batch_size: int) -> int:
    """Returns the number of batches that hold every image once, one bucket after the other."""
    return sum(-(-count // batch_size) for count in counts)


def evaluation_example(
    counts: Sequence[int], *, step: int, row: int, batch_size: int
) -> tuple[int, int, bool]:
    """Returns the image of a row of an evaluation batch, in stored order within each bucket.

    Returns:
        (bucket, place of the image in its bucket, whether the row is no padding); beyond the last
        batch, where readers that work ahead may look, everything is padding.
    """
    for bucket, count in enumerate(counts):
        batches = -(-count // batch_size)
        if step < batches:
            place = step * batch_size + row
            return bucket, min(place, count - 1), place < count
        step -= batches
    return len(counts) - 1, counts[-1] - 1, False
