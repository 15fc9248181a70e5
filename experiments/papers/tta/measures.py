"""Throughput of random views."""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.ensembling.views import Predictor, Views
from experiments.suite.experiment import Metric


def throughput(
    predict: Predictor, images: np.ndarray, views: Views, *, seconds: float
) -> dict[str, Metric]:
    """Times predictions of images and of their views in turn.

    Args:
        predict: network.
        images: uint8[N, H, W, C], one batch.
        views: random views.
        seconds: time of the measurement.

    Returns:
        Images and views per second (medians), and the median of their ratios.
    """
    pixels = jnp.asarray(images, jnp.float32)
    key = jax.random.key(0)

    def timed(function: Any) -> float:
        began = time.perf_counter()
        jax.block_until_ready(function())
        return time.perf_counter() - began

    def plain() -> Any:
        return predict(pixels)

    def augmented() -> Any:
        return predict(views(key, pixels, 0))

    for function in (plain, augmented):
        timed(function)
    rounds = []
    until = time.monotonic() + seconds
    while time.monotonic() < until or len(rounds) < 3:
        rounds.append((timed(plain), timed(augmented)))
    times = np.array(rounds)
    of_plain, of_views = np.median(times, axis=0)
    return {
        "images_per_second": Metric(len(images) / float(of_plain), "images/s", len(rounds)),
        "views_per_second": Metric(len(images) / float(of_views), "views/s", len(rounds)),
        "throughput_share": Metric(
            float(np.median(times[:, 0] / times[:, 1])), "x", len(rounds),
            "views per second over images per second, batches in turn",
        ),
    }  # fmt: skip
