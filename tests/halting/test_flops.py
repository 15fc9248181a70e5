"""FLOPs against the published anchors and against counting positions one by one."""

from __future__ import annotations

import numpy as np
import pytest

from adaptive_nets.halting import act_flops, conv_flops, sact_head_flops, sact_unit_flops
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def everywhere(size):
    return np.ones((1, size, size), bool)


def cifar_flops(units, *, heads):
    """Three blocks of basic units at 32², 16², 8² with 16, 32, 64 channels."""
    total = conv_flops(32 * 32, (3, 3), 3, 16) + conv_flops(1, (1, 1), 64, 10)
    for block, (size, channels) in enumerate([(32, 16), (16, 32), (8, 64)]):
        same = sact_unit_flops(everywhere(size), channels=channels, kind="basic")[0]
        total += units * same
        if block:
            # The first unit takes half the channels at stride 2; its shortcut has no weights.
            total -= conv_flops(size * size, (3, 3), channels // 2, channels)
        if heads:
            total += (units - 1) * sact_head_flops(everywhere(size), channels=channels)[0]
    return int(total)


@pytest.mark.parametrize(
    ("units", "vanilla", "with_heads"),
    [(5, 137_725_184, 139_790_464), (18, 505_775_360, 514_552_800)],
)
def test_cifar_networks(units, vanilla, with_heads):
    assert cifar_flops(units, heads=False) == vanilla
    assert cifar_flops(units, heads=True) == with_heads


def imagenet_block_flops(units, *, heads):
    """Bottleneck blocks at 224²; stride 2 on the 3x3 convolution of the first unit."""
    blocks, incoming, size = [], 64, 56
    for block, number in enumerate(units):
        channels, hidden = 256 * 2**block, 64 * 2**block
        reduced = size // (2 if block else 1)
        first = (
            conv_flops(size**2, (1, 1), incoming, hidden)
            + conv_flops(reduced**2, (3, 3), hidden, hidden)
            + conv_flops(reduced**2, (1, 1), hidden, channels)
            + conv_flops(reduced**2, (1, 1), incoming, channels)
        )
        rest = sact_unit_flops(everywhere(reduced), channels=channels, kind="bottleneck")[0]
        head = sact_head_flops(everywhere(reduced), channels=channels)[0] if heads else 0
        blocks.append(int(first + (number - 1) * (rest + head)))
        incoming, size = channels, reduced
    return blocks


@pytest.mark.parametrize(
    ("units", "vanilla", "with_heads"),
    [
        ((3, 4, 6, 3), 8.1784e9, 8.2506e9),
        ((3, 4, 23, 3), 1.5603e10, 1.5737e10),
        ((3, 8, 36, 3), 2.3027e10, 2.3237e10),
    ],
)
def test_imagenet_networks(units, vanilla, with_heads):
    ends = int(conv_flops(112**2, (7, 7), 3, 64) + conv_flops(1, (1, 1), 2048, 1001))
    for heads, published in ((False, vanilla), (True, with_heads)):
        total = ends + sum(imagenet_block_flops(units, heads=heads))
        assert total == pytest.approx(published, rel=3e-5)


def test_blocks_of_resnet101():
    blocks = imagenet_block_flops((3, 4, 23, 3), heads=False)
    np.testing.assert_allclose(blocks, [1.336e9, 2.055e9, 1.035e10, 1.618e9], rtol=5e-4)


def test_two_flops_per_unit():
    np.testing.assert_array_equal(act_flops(np.array([1, 3, 5]), [2] * 5), [2, 6, 10])
    uneven = act_flops(np.array([[1, 2], [3, 3]]), [7, 10, 100])
    np.testing.assert_array_equal(uneven, [[7, 17], [117, 117]])
    assert uneven.dtype == np.int64


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_partly_active_unit_equals_counting_positions(kind, rng):
    active = rng.random((3, 6, 5)) < 0.2
    active[0] = False
    expected = []
    for mask in active:
        own = read = 0
        for y, x in np.ndindex(mask.shape):
            own += mask[y, x]
            read += mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any()
        if kind == "basic":
            expected.append(2 * 9 * 8 * 8 * (read + own))
        else:
            expected.append(2 * (read * 8 * 2 + own * (9 * 2 * 2 + 2 * 8)))
    flops = sact_unit_flops(active, channels=8, kind=kind)
    np.testing.assert_array_equal(flops, expected)
    assert flops[0] == 0
    heads = sact_head_flops(active, channels=8)
    np.testing.assert_array_equal(heads, 2 * 9 * 8 * active.sum((1, 2)) + 2 * 8)


def test_sums_do_not_overflow():
    assert int(conv_flops(np.int32(10**6), (3, 3), 1024, 1024)) == 18 * 2**20 * 10**6


def test_bad_arguments_are_one_line():
    with pytest.raises(UserError, match="num_units has values from 0 to 6; expected 1 to 5"):
        act_flops(np.array([0, 6]), [2] * 5)
    with pytest.raises(UserError, match="kind is 'wide'; expected 'basic' or 'bottleneck'"):
        sact_unit_flops(everywhere(2), channels=4, kind="wide")  # pyright: ignore
