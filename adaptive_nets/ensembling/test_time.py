"""Test-time augmentation: predictions averaged over random views [ashukha2020, sec. 5]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from adaptive_nets.ensembling.averaging import RunningAverage
from adaptive_nets.ensembling.stores import IDENTITY, check_identity, plain_values
from adaptive_nets.ensembling.streaming import predict_view, sum_views
from adaptive_nets.ensembling.views import Predictor, Views
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress


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
    return sum_views(
        predictors, images, views, counts=counts, prepare=np.exp,
        finish=lambda sums: RunningAverage(sums.total, sums.count).log_mean(), seed=seed,
        batch_size=batch_size, store=store, identity=identity, progress=progress, title=title,
    )  # fmt: skip


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
    count, batch_size = as_integer("count", count), as_integer("batch_size", batch_size)
    progress = progress or SilentProgress()
    note = path.with_suffix(".json")
    marks = plain_values(
        {"seed": seed, "batch_size": batch_size, "count": count, **(identity or {})}
    )
    done, array = 0, cast("np.memmap | None", None)
    if path.exists() and not note.exists():
        raise UserError(f"{path} exists without its {note.name}; choose another file or remove it")
    if path.exists():
        content = read_json_object(note, remedy="remove it", entries={"done": int, IDENTITY: dict})
        check_identity(path, content[IDENTITY], marks)
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
        write_json_atomically(note, {"done": number + 1, IDENTITY: marks})
    progress.finish()
    assert array is not None
    return array


def _open_array(path: Path) -> np.memmap:
    try:
        # A short file is refused for reading; for writing NumPy would lengthen it.
        np.lib.format.open_memmap(path, "r")
        return np.lib.format.open_memmap(path, "r+")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}; remove it to begin again") from error
