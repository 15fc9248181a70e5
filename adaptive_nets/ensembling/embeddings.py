"""Mean embeddings over random views [ashukha2021]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from adaptive_nets.ensembling.features import FeatureFn
from adaptive_nets.ensembling.streaming import sum_views
from adaptive_nets.ensembling.views import Views
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter


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
    return sum_views(
        [feature_fn], images, views, counts=counts, prepare=lambda features: features,
        finish=lambda sums: sums.mean.astype(np.float32), seed=seed, batch_size=batch_size,
        store=store, identity=identity, progress=progress, title=title, after_view=after_view,
    )  # fmt: skip


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
