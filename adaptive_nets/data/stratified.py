"""Divisions of labelled images by class."""

from __future__ import annotations

import numpy as np


def stratified_subset(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Draws images so that every class has its share, up to rounding.

    Args:
        labels: int[N].
        count: number of images to draw, at most N.
        seed: seed of the draw.

    Returns:
        bool[N], true for the drawn images.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    # Rank of each image within its class, as a share; the images with the smallest are drawn.
    sorted_order = order[np.argsort(labels[order], kind="stable")]
    _, sizes = np.unique(labels, return_counts=True)
    rank = np.concatenate([(np.arange(size) + generator.random()) / size for size in sizes])
    drawn = np.zeros(len(labels), bool)
    drawn[sorted_order[np.argsort(rank, kind="stable")[:count]]] = True
    return drawn
