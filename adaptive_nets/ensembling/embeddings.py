"""Mean embeddings over random views [ashukha2021].

Features are summed as they come, so memory does not grow with the number of views.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from adaptive_nets.ensembling.averaging import RunningAverage
from adaptive_nets.ensembling.features import FeatureFn
from adaptive_nets.ensembling.test_time import (
    _SAVE_EVERY,
    _checked_counts,
    _restore,
    _save,
    predict_view,
)
from adaptive_nets.ensembling.views import Views
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress


def mean_embedding(features: Float[Any, "N S D"]) -> Float[Array, "N D"]:
    """Computes the mean embedding, (1/S) Σ_s a(x̂_s), of S views of each image [ashukha2021].

    The features are not normalised. With a linear head W·a + b, the logits of the mean embedding
    are the mean of the logits of the views.

    Args:
        features: float[N, S, D], activations of S views of N images.

    Returns:
        float[N, D], float32 or wider.

    Raises:
        UserError: other axes, or no views.
    """
    array = jnp.asarray(features)
    if array.ndim != 3:
        raise UserError(f"features have shape {array.shape}; expected [N, S, D]")
    if not array.shape[1]:
        raise UserError(f"features have shape {array.shape}; expected at least one view, S >= 1")
    dtype = jnp.promote_types(array.dtype, jnp.float32)
    return jnp.mean(array.astype(dtype), axis=1)


def average_features(
    feature_fn: FeatureFn,
    images: UInt8[np.ndarray, "N H W C"],
    views: Views,
    *,
    counts: Sequence[int],
    seed: int = 0,
    batch_size: int = 500,
    store: Path | None = None,
    identity: Mapping[str, Any] | None = None,
    progress: ProgressReporter | None = None,
    title: str = "mean embeddings",
    after_view: Callable[[int, np.ndarray], None] = lambda number, features: None,
) -> dict[int, Float[np.ndarray, "N D"]]:
    """Computes mean embeddings of the first S views, for several S in one pass.

    View s of an image is the same as in `predict_view` and `average_views`.

    Args:
        feature_fn: features of a network, from `make_feature_fn`.
        images: uint8[N, H, W, C].
        views: random views.
        counts: increasing numbers of views S.
        seed: seed of the random parts.
        batch_size: images at a time.
        store: file that keeps the sums; work that it holds is not repeated.
        identity: what the sums depend on, such as digests of weights and images; a store of
            another identity is refused.
        progress: shows the rate and the remaining time.
        title: title of the progress.
        after_view: called with the number and the features, float32[N, D], of every view that is
            computed; views in the store are not.

    Returns:
        Number of views -> float32[N, D]; the sums are in float64.

    Raises:
        UserError: no images, no or zero views, or a store of another identity.
    """
    counts = _checked_counts(counts)
    progress = progress or SilentProgress()
    marks = {"seed": seed, "batch_size": batch_size, **(identity or {})}
    # Of the running average, only sum and count are of use here.
    sums, found = _restore(store, marks)
    done = 0 if sums is None else sums.count
    batches = -(-len(images) // min(batch_size, max(len(images), 1)))
    batch = done * batches
    progress.start(title, done=batch, total=counts[-1] * batches, unit="batches")
    saved = time.monotonic()

    def after_batch() -> None:
        nonlocal batch
        batch += 1
        progress.update(batch)

    for number in range(done, counts[-1]):
        features = predict_view(
            feature_fn, images, views, number, seed=seed, batch_size=batch_size,
            after_batch=after_batch,
        )  # fmt: skip
        after_view(number, features)
        total = features.astype(np.float64) if sums is None else sums.total + features
        sums = RunningAverage(total, number + 1)
        if sums.count in counts:
            found[sums.count] = (sums.total / sums.count).astype(np.float32)
        last = sums.count == counts[-1]
        if store is not None and (last or time.monotonic() - saved > _SAVE_EVERY):
            _save(store, sums, found, marks)
            saved = time.monotonic()
    progress.finish()
    missing = [count for count in counts if count not in found]
    if missing:
        raise UserError(
            f"{store} holds {done} views but not the mean of {missing[0]}; remove it to begin again"
        )
    return {count: found[count] for count in counts}


def interpolate(
    first: Float[np.ndarray, "*shape"], second: Float[np.ndarray, "*shape"], share: float
) -> Float[np.ndarray, "*shape"]:
    """Computes (1 − α)·x + α·y.

    Args:
        first: x, embeddings or logits.
        second: y, of the same shape.
        share: α, from 0 to 1.

    Raises:
        UserError: the shapes differ.
    """
    if np.shape(first) != np.shape(second):
        raise UserError(f"second has shape {np.shape(second)}; expected {np.shape(first)}")
    return (1 - share) * first + share * second
