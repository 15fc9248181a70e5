"""Test-time augmentation: predictions averaged over random views [ashukha2020, sec. 5].

Predictions are summed as they come, so memory does not grow with the number of views. A store on
disk keeps the sums, and the work goes on from there after an interruption.
"""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from adaptive_nets.ensembling.arguments import as_count
from adaptive_nets.ensembling.averaging import RunningAverage
from adaptive_nets.ensembling.views import Predictor, Views
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically, write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress
from adaptive_nets.runtime.reading import read_file

# Seconds between two writes of the sums.
_SAVE_EVERY = 20.0
_IDENTITY = "identity"


def predict_view(
    predict: Predictor,
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    number: int,
    *,
    seed: int = 0,
    batch_size: int = 500,
    after_batch: Callable[[], None] = lambda: None,
) -> Float[np.ndarray, "N K"]:
    """Predicts one view of every image.

    Random parts depend on the seed, the number of the view, the batch size and the place of the
    image in its batch.

    Args:
        predict: network.
        images: uint8[N, H, W, C].
        views: random views.
        number: number of the view.
        seed: seed of the random parts.
        batch_size: images at a time.
        after_batch: called after every batch.

    Returns:
        float32[N, K], log-probabilities, nats.

    Raises:
        UserError: there are no images.
    """
    if not len(images):
        raise UserError("images are empty; expected at least one")
    key = jax.random.fold_in(jax.random.key(seed), number)
    size = min(as_count("batch_size", batch_size), len(images))
    parts = []
    for start in range(0, len(images), size):
        # The last batch is filled with images that are predicted twice, for one program.
        at = min(start, len(images) - size)
        pixels = jnp.asarray(images[at : at + size], jnp.float32)
        found = predict(views(jax.random.fold_in(key, start), pixels, number))
        parts.append(np.asarray(found)[start - at :])
        after_batch()
    return np.concatenate(parts)


def average_views(
    predictors: Sequence[Predictor],
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    *,
    counts: Sequence[int],
    seed: int = 0,
    batch_size: int = 500,
    store: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    title: str = "test-time augmentation",
) -> dict[int, Float[np.ndarray, "N K"]]:
    """Averages predictions over views; view s is predicted by member s mod M.

    An ensemble of M members so costs as much with augmentation as without: one independent view
    for each member and image [ashukha2020, sec. 5]. A single network predicts every view.

    Args:
        predictors: M members, at least one.
        images: uint8[N, H, W, C].
        views: random views.
        counts: increasing numbers of views whose average is returned.
        seed: seed of the random parts.
        batch_size: images at a time.
        store: file that keeps the sums; work that it holds is not repeated.
        identity: what the sums depend on, such as digests of weights and images; a store of
            another identity is refused.
        progress: shows the rate and the remaining time.
        title: title of the progress.

    Returns:
        Number of views -> float64[N, K], log of the mean probability, nats.

    Raises:
        UserError: no member, no or zero views, or a store of another identity.
    """
    counts = _checked_counts(counts)
    if not predictors:
        raise UserError("predictors are empty; expected at least one network")
    progress = progress or SilentProgress()
    batch_size = as_count("batch_size", batch_size)
    marks = {"seed": seed, "batch_size": batch_size, **(identity or {})}
    average, found = _restore(store, marks)
    held = 0 if average is None else average.count
    lost = [count for count in counts if count not in found and count <= held]
    if lost:
        raise UserError(
            f"{store} holds {held} views but not the average of {lost[0]}; remove it to begin again"
        )
    batches = -(-len(images) // min(batch_size, max(len(images), 1)))
    total, batch = counts[-1] * batches, held * batches
    progress.start(title, done=batch, total=total, unit="batches")
    saved = time.monotonic()

    def after_batch() -> None:
        nonlocal batch
        batch += 1
        progress.update(batch)

    for number in range(held, counts[-1]):
        log_probs = predict_view(
            predictors[number % len(predictors)], images, views, number, seed=seed,
            batch_size=batch_size, after_batch=after_batch,
        )  # fmt: skip
        average = (average or RunningAverage.empty(*log_probs.shape)).add(log_probs)
        if average.count in counts:
            found[average.count] = average.log_mean()
        last = average.count == counts[-1]
        if store is not None and (last or time.monotonic() - saved > _SAVE_EVERY):
            _save(store, average, found, marks)
            saved = time.monotonic()
    progress.finish()
    return {count: found[count] for count in counts}


def predict_pool(
    predict: Predictor,
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    *,
    count: int,
    path: Path,
    seed: int = 0,
    batch_size: int = 500,
    identity: Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    title: str = "pool of sub-policies",
) -> Float[np.ndarray, "B N K"]:
    """Predicts views 0 to B − 1 once and keeps them on disk.

    A file beside the array says how many candidates are complete, so that an interrupted call goes
    on with the next one.

    Args:
        predict: network.
        images: uint8[N, H, W, C].
        views: random views; view b is candidate b.
        count: number of candidates B.
        path: file of the array, ``*.npy``.
        seed: seed of the random parts.
        batch_size: images at a time.
        identity: what the predictions depend on; a file of another identity is refused.
        progress: shows the rate and the remaining time.
        title: title of the progress.

    Returns:
        float32[B, N, K], log-probabilities, memory-mapped.

    Raises:
        UserError: no candidates, or a file of another identity.
    """
    count, batch_size = as_count("count", count), as_count("batch_size", batch_size)
    progress = progress or SilentProgress()
    note = path.with_suffix(".json")
    marks = _plain({"seed": seed, "batch_size": batch_size, "count": count, **(identity or {})})
    done, array = 0, cast("np.memmap | None", None)
    if path.exists() and not note.exists():
        raise UserError(f"{path} exists without its {note.name}; choose another file or remove it")
    if path.exists():
        content = read_json_object(note, remedy="remove it", entries={"done": int, _IDENTITY: dict})
        _check_identity(path, content[_IDENTITY], marks)
        done = content["done"]
        array = _open_array(path)
        if len(array) != count or not 0 <= done <= count:
            raise UserError(f"{path} holds {len(array)} candidates; expected {count}; remove it")
    batches = -(-len(images) // min(batch_size, max(len(images), 1)))
    batch = done * batches
    progress.start(title, done=batch, total=count * batches, unit="batches")

    def after_batch() -> None:
        nonlocal batch
        batch += 1
        progress.update(batch)

    for number in range(done, count):
        log_probs = predict_view(
            predict, images, views, number, seed=seed, batch_size=batch_size,
            after_batch=after_batch,
        )  # fmt: skip
        if array is None:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.lib.format.open_memmap(path, "w+", np.float32, (count, *log_probs.shape))
        array[number] = log_probs
        array.flush()
        write_json_atomically(note, {"done": number + 1, _IDENTITY: marks})
    progress.finish()
    assert array is not None
    return array


def _checked_counts(counts: Sequence[int]) -> tuple[int, ...]:
    found = tuple(as_count("views", count) for count in counts)
    if not found or list(found) != sorted(set(found)):
        raise UserError(f"views are {list(counts)}; expected increasing numbers of at least 1")
    return found


def _open_array(path: Path) -> np.memmap:
    try:
        # A short file is refused for reading; for writing NumPy would lengthen it.
        np.lib.format.open_memmap(path, "r")
        return np.lib.format.open_memmap(path, "r+")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; remove it to begin again") from error


def _plain(marks: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(marks))


def _check_identity(path: Path, there: Any, marks: Mapping[str, Any]) -> None:
    if there != _plain(marks):
        names = sorted(n for n in {*there, *marks} if there.get(n) != _plain(marks).get(n))
        raise UserError(
            f"{path} holds predictions of another {' and '.join(names)}; expected those of this "
            "run: choose another file or remove it"
        )


def _restore(
    store: Path | None, marks: Mapping[str, Any]
) -> tuple[RunningAverage | None, dict[int, np.ndarray]]:
    """Returns the average and its snapshots from a file; nothing if there is none."""
    if store is None or not os.path.exists(store):
        return None, {}
    try:
        with np.load(io.BytesIO(read_file(store)), allow_pickle=False) as content:
            there = json.loads(str(content[_IDENTITY]))
            average = RunningAverage(content["total"], int(content["count"]))
            found = {int(n): content[f"at.{n}"] for n in content["counts"]}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{store} is damaged: {error}; remove it to begin again") from error
    _check_identity(store, there, marks)
    return average, found


def _save(
    store: Path, average: RunningAverage, found: Mapping[int, np.ndarray], marks: Mapping[str, Any]
) -> None:
    arrays: dict[str, Any] = {
        "total": average.total,
        "count": np.array(average.count),
        "counts": np.array(sorted(found), np.int64),
        _IDENTITY: np.array(json.dumps(_plain(marks))),
        **{f"at.{n}": value for n, value in found.items()},
    }
    content = io.BytesIO()
    np.savez(content, **arrays)
    store.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomically(store, content.getvalue())
