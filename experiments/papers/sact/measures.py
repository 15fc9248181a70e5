"""Cost per image of plain networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adaptive_nets.analysis import count_macs
from experiments.shared.adaptive_depth.measures import flops_metrics
from experiments.suite.experiment import Metric


def plain_costs(model: Any, image_size: tuple[int, int], *, count: int) -> dict[str, Metric]:
    """Returns the FLOPs of a network that computes everything for every image.

    Args:
        model: the network.
        image_size: (H, W) of the images.
        count: number of test images.
    """
    macs = count_macs(model, input_shape=(*image_size, 3))
    return flops_metrics(np.array([2.0 * macs]), count=count)


def stage_metrics(sizes: Sequence[int]) -> dict[str, Metric]:
    """Returns the units of each block of a plain network; empty for the published sizes."""
    return {
        f"units.block{i}": Metric(float(size), "units", 1, "chosen for equal FLOPs")
        for i, size in enumerate(sizes, start=1)
    }
