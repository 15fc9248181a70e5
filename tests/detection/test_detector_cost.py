"""FLOPs of the feature extractor: formulas written out, and positions counted one by one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from detectors import SETTINGS, output_by_hand
from scipy.ndimage import binary_dilation

from adaptive_nets import detection
from adaptive_nets.models import BlockTrace

pytestmark = pytest.mark.core
SIZE = np.array([[32, 48], [21, 31]], np.int32)
UNITS, WIDTHS = (2, 1, 2), (4, 8, 8)
MAPS = [(32, 48), (16, 24)]


def detector_of(name):
    options = {"stage_sizes": UNITS, "widths": WIDTHS} if "act" in name else {}
    return detection.create_detector(name, num_classes=2, settings=SETTINGS, **options)


def trace(units, count, size):
    zeros, more = jnp.zeros(units.shape), jnp.zeros((*units.shape, count))
    units = jnp.asarray(units, jnp.int32)
    return BlockTrace(zeros, units, more, more, more, jnp.zeros(len(units)), size)


def positions(size):
    return [int(np.prod([-(-side // stride) for side in size])) for stride in (1, 2)]


def plain_by_hand(valid):
    flops = []
    for n, size in enumerate(SIZE):
        first, second = positions(size)
        total = 2 * first * 9 * 3 * 4 + 2 * first * 9 * 4 * 4 * 4
        total += 2 * second * 9 * (4 * 8 + 8 * 8)
        total += valid[n].sum() * 2 * 4 * 9 * 8 * 8 * 4
        flops.append(total)
    return flops


@pytest.mark.parametrize("rule", ["sact", "act"])
def test_all_units_cost_the_plain_network_and_its_heads(rng, rule):
    shapes = [(2, *size) if rule == "sact" else (2,) for size in MAPS]
    shapes.append((10, 2, 2) if rule == "sact" else (10,))
    blocks = tuple(
        trace(np.full(shape, count), count, size)
        for shape, count, size in zip(shapes, UNITS, [*MAPS, (2, 2)], strict=True)
    )
    output = output_by_hand(rng, blocks=blocks, size=jnp.asarray(SIZE))
    found = detection.feature_cost(detector_of(f"resnetv1_20_{rule}_cifar10"), output)
    valid = np.asarray(output.region_valid)
    assert found.flops.dtype == np.int64
    assert found.plain_flops.tolist() == plain_by_hand(valid)
    for n, size in enumerate(SIZE):
        local = positions(size)[0] * 2 * 9 * 4 + valid[n].sum() * 4 * 2 * 9 * 8
        overall = 2 * 4 + valid[n].sum() * 2 * 8
        heads = overall + (local if rule == "sact" else 0)
        assert found.flops[n] - found.plain_flops[n] == heads


def test_positions_that_run_are_counted_one_by_one(rng):
    units = rng.integers(1, 3, (2, 32, 48))
    regions = rng.integers(1, 3, (10, 2, 2))
    blocks = (
        trace(units, 2, (32, 48)),
        trace(np.ones((2, 16, 24)), 1, (16, 24)),
        trace(regions, 2, (2, 2)),
    )
    output = output_by_hand(rng, blocks=blocks, size=jnp.asarray(SIZE))
    found = detection.feature_cost(detector_of("resnetv1_20_sact_cifar10"), output)
    valid = np.asarray(output.region_valid).reshape(2, 5)

    def second_unit(mask, width):
        wide = binary_dilation(mask, np.ones((3, 3)))
        return 2 * 9 * width * width * (wide.sum() + mask.sum())

    for n, (height, width) in enumerate(SIZE):
        first, second = height * width, positions((height, width))[1]
        total = 2 * first * 9 * 3 * 4 + 2 * first * 9 * 4 * 4 * 2
        total += second_unit(units[n, :height, :width] == 2, 4) + first * 2 * 9 * 4 + 2 * 4
        total += 2 * second * 9 * (4 * 8 + 8 * 8)
        for r in np.flatnonzero(valid[n]):
            total += 2 * 4 * 9 * 8 * 8 * 2 + 4 * 2 * 9 * 8 + 2 * 8
            total += second_unit(regions[5 * n + r] == 2, 8)
        assert found.flops[n] == total


def test_a_plain_network_costs_itself(rng):
    output = output_by_hand(rng, size=jnp.asarray(SIZE))
    found = detection.feature_cost(detector_of("resnet20_cifar10"), output)
    np.testing.assert_array_equal(found.flops, found.plain_flops)
    assert found.mean_share == 1
    assert found.share_deviation == 0


def test_images_of_several_batches():
    a = detection.FeatureCost(np.array([3, 4]), np.array([6, 4]))
    both = a.merge(detection.FeatureCost(np.array([1]), np.array([4])))
    np.testing.assert_allclose(both.share, [0.5, 1, 0.25])
    assert both.mean_share == pytest.approx(7 / 12)


def test_the_last_stage_of_imagenet_reads_regions_of_fourteen(rng):
    """Blocks 1 to 3 of ResNet-101 at 224 pixels, and block 4 once: the published 1.5603e10."""
    detector = detection.create_detector("resnetv2_101", num_classes=2)
    output = output_by_hand(
        rng,
        images=1,
        regions=1,
        region_valid=jnp.ones((1, 1), bool),
        size=jnp.asarray([[224, 224]]),
        image_size=(224, 224),
        map_sizes=((56, 56), (28, 28), (14, 14), (7, 7)),
    )
    classifier = 2 * 2048 * 1001
    found = detection.feature_cost(detector, output).flops[0] + classifier
    assert found == pytest.approx(1.5603e10, rel=3e-5)
