"""Random views of small images."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from adaptive_nets.data.augmentations.crops import AREA_RANGE, random_resized_crop
from adaptive_nets.ensembling.views import Images, Views, crop_views
from experiments.papers.metta.fields import CropsConfig


def random_views(config: CropsConfig) -> Views:
    """Returns views of the configuration: crops of padded images, or resized crops; with flips.

    The share of a resized crop is uniform from the smallest area to 1.
    """
    if config.smallest_area == 1:
        return crop_views(config.padding)
    low = config.smallest_area

    @jax.jit
    def apply(key: jax.Array, images: Images) -> Images:
        area_key, crop_key = jax.random.split(key)
        # A crop's share exceeds the given one by at most the width of its range.
        high = max(low, 1 - AREA_RANGE)
        area = jax.random.uniform(area_key, images.shape[:1], jnp.float32, low, high)
        return random_resized_crop(crop_key, images, area)

    def views(key: jax.Array, images: Images, number: int) -> Images:
        del number
        return apply(key, images)

    return views
