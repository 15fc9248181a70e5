"""Predictions of views that are summed as they come, and kept on disk.

Memory does not grow with the number of views. A store keeps the sums, and the work goes on from
there after an interruption.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from adaptive_nets.ensembling.stores import read_arrays, write_arrays
from adaptive_nets.ensembling.views import ImageFn, Views
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress

SAVE_EVERY = 20.0
"""Seconds between two writes of the sums."""


@dataclasses.dataclass(frozen=True)
class Sums:
    """Sums over views.

    Attributes:
        total: float64[N, D].
        count: number of views.
    """

    total: Float[np.ndarray, "N D"]
    count: int

    @property
    def mean(self) -> Float[np.ndarray, "N D"]:
        """Mean over the views."""
        return self.total / self.count


def predict_view(
    predict: ImageFn,
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    number: int,
    *,
    seed: int = 0,
    batch_size: int = 500,
    after_batch: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "N D"]:
    """Predicts one view of every image.

    Random parts depend on the seed, the number of the view, the batch size and the place of the
    image in its batch.

    Args:
        predict: network, or any function from pixels to an array of one row for each image.
        images: uint8[N, H, W, C].
        views: random views.
        number: number of the view.
        seed: seed of the random parts.
        batch_size: images at a time.
        after_batch: called after every batch.

    Returns:
        float32[N, D], such as log-probabilities.

    Raises:
        UserError: there are no images.
    """
    if not len(images):
        raise UserError("images are empty; expected at least one")
    key = jax.random.fold_in(jax.random.key(seed), number)
    size = min(as_integer("batch_size", batch_size), len(images))
    parts = []
    for start in range(0, len(images), size):
        # The last batch is filled with images that are predicted twice, for one program.
        at = min(start, len(images) - size)
        pixels = jnp.asarray(images[at : at + size], jnp.float32)
        found = predict(views(jax.random.fold_in(key, start), pixels, number))
        parts.append(np.asarray(found)[start - at :])
        after_batch()
    return np.concatenate(parts)


def sum_views(
    predictors: Sequence[ImageFn],
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    *,
    counts: Sequence[int],
    prepare: Callable[[np.ndarray], np.ndarray],
    finish: Callable[[Sums], np.ndarray],
    seed: int,
    batch_size: int,
    store: Path | None,
    identity: Mapping[str, Any] | None,
    progress: ProgressReporter | None,
    title: str,
    after_view: Callable[[int, np.ndarray], None] = lambda number, found: None,
) -> dict[int, np.ndarray]:
    """Sums predictions over views, and returns a result at each of several numbers of views.

    Args:
        predictors: view s is predicted by member s mod M of them.
        images: uint8[N, H, W, C].
        views: random views.
        counts: increasing numbers of views.
        prepare: prediction of a view -> float[N, D] that is summed.
        finish: sums -> result.
        seed: seed of the random parts.
        batch_size: images at a time.
        store: file that keeps the sums; work that it holds is not repeated.
        identity: what the sums depend on; a store of another identity is refused.
        progress: shows the rate and the remaining time.
        title: title of the progress.
        after_view: called with the number and the prediction of every view that is computed.

    Returns:
        Number of views -> result.

    Raises:
        UserError: no member, no or zero views, or a store of another identity.
    """
    counts = _checked_counts(counts)
    if not predictors:
        raise UserError("predictors are empty; expected at least one network")
    progress = progress or SilentProgress()
    batch_size = as_integer("batch_size", batch_size)
    marks = {"seed": seed, "batch_size": batch_size, **(identity or {})}
    sums, found = _restore(store, marks)
    held = 0 if sums is None else sums.count
    lost = [count for count in counts if count not in found and count <= held]
    if lost:
        raise UserError(
            f"{store} holds {held} views but not the average of {lost[0]}; remove it to begin again"
        )
    batches = -(-len(images) // min(batch_size, max(len(images), 1)))
    batch = held * batches
    progress.start(title, done=batch, total=counts[-1] * batches, unit="batches")
    saved = time.monotonic()

    def after_batch() -> None:
        nonlocal batch
        batch += 1
        progress.update(batch)

    for number in range(held, counts[-1]):
        predicted = predict_view(
            predictors[number % len(predictors)], images, views, number, seed=seed,
            batch_size=batch_size, after_batch=after_batch,
        )  # fmt: skip
        after_view(number, predicted)
        added = prepare(predicted.astype(np.float64))
        if sums is not None and sums.total.shape != added.shape:
            raise UserError(
                f"{store} holds predictions of shape {sums.total.shape}; expected {added.shape}: "
                "choose another file or remove it"
            )
        sums = Sums(added if sums is None else sums.total + added, number + 1)
        if sums.count in counts:
            found[sums.count] = finish(sums)
        last = sums.count == counts[-1]
        if store is not None and (last or time.monotonic() - saved > SAVE_EVERY):
            _save(store, sums, found, marks)
            saved = time.monotonic()
    progress.finish()
    return {count: found[count] for count in counts}


def _checked_counts(counts: Sequence[int]) -> tuple[int, ...]:
    found = tuple(as_integer("views", count) for count in counts)
    if not found or list(found) != sorted(set(found)):
        raise UserError(f"views are {list(counts)}; expected increasing numbers of at least 1")
    return found


def _restore(
    store: Path | None, marks: Mapping[str, Any]
) -> tuple[Sums | None, dict[int, np.ndarray]]:
    """Returns the sums and the results from a file; nothing if there is none."""
    arrays = read_arrays(store, marks)
    if arrays is None:
        return None, {}
    try:
        sums = Sums(arrays["total"], int(arrays["count"]))
        return sums, {int(n): arrays[f"at.{n}"] for n in arrays["counts"]}
    except (ValueError, KeyError) as error:
        raise UserError(f"{store} is damaged: {error}; remove it to begin again") from error


def _save(
    store: Path, sums: Sums, found: Mapping[int, np.ndarray], marks: Mapping[str, Any]
) -> None:
    arrays = {
        "total": sums.total,
        "count": np.array(sums.count),
        "counts": np.array(sorted(found), np.int64),
        **{f"at.{n}": value for n, value in found.items()},
    }
    write_arrays(store, arrays, marks)
