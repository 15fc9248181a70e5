"""Cost of networks of adaptive depth: the published anchors, and positions counted one by one."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

import adaptive_nets as an
from adaptive_nets.models import BlockTrace, ModelOutput
from adaptive_nets.models.adaptive.cost import block_flops, flops_per_image
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
CIFAR = [(32, 32), (16, 16), (8, 8)]


def imagenet(size):
    return [(-(-size // 2**i),) * 2 for i in (2, 3, 4, 5)]


def output_of(model, sizes, units=None):
    """Returns the output of a network that runs this many units, all by default."""
    blocks = []
    for i, (count, size) in enumerate(zip(model.stage_sizes, sizes, strict=True)):
        shape = (1,) if model.halting.rule == "act" else (1, *size)
        number = np.full(shape, count) if units is None else units[i]
        zeros, more = jnp.zeros(number.shape), jnp.zeros((*number.shape, count))
        number = jnp.asarray(number, jnp.int32)
        blocks.append(BlockTrace(zeros, number, more, more, more, jnp.zeros(len(number)), size))
    logits = jnp.zeros((blocks[0].num_units.shape[0], model.num_classes))
    return ModelOutput(logits, blocks=tuple(blocks))


@pytest.mark.parametrize(
    ("name", "sizes", "expected"),
    [
        ("resnet32_sact_cifar10", CIFAR, 139_790_464),
        pytest.param("resnet110_sact_cifar10", CIFAR, 514_552_800, marks=pytest.mark.slow),
        ("resnet32_act_cifar10", CIFAR, 137_725_184 + 2 * 4 * (16 + 32 + 64)),
        ("resnet50_sact", imagenet(224), 8.2506e9),
        ("resnet101_sact", imagenet(224), 1.5737e10),
        pytest.param("resnet152_sact", imagenet(224), 2.3237e10, marks=pytest.mark.slow),
    ],
)
def test_all_units(name, sizes, expected):
    model = an.create_model(name)
    (found,) = flops_per_image(model, output_of(model, sizes))
    assert found == (expected if isinstance(expected, int) else pytest.approx(expected, rel=3e-5))
    assert found.dtype == np.int64


def test_counting_what_is_traced_gives_the_same():
    assert 2 * an.count_macs("resnet32_sact_cifar10") == 139_790_464
    assert 2 * an.count_macs("resnetv2_32_cifar10") == 137_725_184


@pytest.mark.parametrize(
    ("size", "plain"),
    [
        pytest.param(256, 2.038e10, marks=pytest.mark.slow),
        (320, 3.184e10),
        pytest.param(352, 3.852e10, marks=pytest.mark.slow),
    ],
)
def test_larger_images(size, plain):
    """Heads of ResNet-101 are 9 MACs per channel and position, one per channel besides."""
    model = an.create_model("resnet101_sact")
    sizes = imagenet(size)
    (found,) = flops_per_image(model, output_of(model, sizes), image_size=(size, size))
    heads = sum(
        2 * (count - 1) * (9 * channels * rows * columns + channels)
        for count, channels, (rows, columns) in zip(
            model.stage_sizes, (256, 512, 1024, 2048), sizes, strict=True
        )
    )
    assert found - heads == pytest.approx(plain, rel=3e-4)


def test_blocks_of_resnet101():
    model = an.create_model("resnet101_act")
    blocks = block_flops(model, output_of(model, imagenet(224)))[0]
    np.testing.assert_allclose(blocks, [1.336e9, 2.055e9, 1.035e10, 1.618e9], rtol=5e-4)


def test_positions_are_counted_one_by_one(rng):
    model = an.create_model("resnet32_sact_cifar10")
    units = [rng.integers(1, 6, (2, *size)) for size in CIFAR]
    found = block_flops(model, output_of(model, CIFAR, units))
    full = block_flops(model, output_of(model, CIFAR))[0]
    for k, (number, channels) in enumerate(zip(units, (16, 32, 64), strict=True)):
        positions = number[0].size
        unit, head = 2 * 9 * channels**2, 2 * 9 * channels
        for image in range(2):
            expected = full[k]
            for count in range(1, 6):
                mask = number[image] >= count
                around = binary_dilation(mask, np.ones((3, 3)))
                if count > 1:
                    expected -= unit * (2 * positions - mask.sum() - around.sum())
                if count < 5:
                    expected -= head * (positions - mask.sum())
            assert found[image, k] == expected


def test_an_image_that_stopped_costs_nothing_more():
    model = an.create_model("resnet32_act_cifar10")
    units = [np.array([1, 5]), np.array([2, 5]), np.array([5, 5])]
    one, all_units = flops_per_image(model, output_of(model, CIFAR, units))
    saved = sum(
        units_saved * 2 * 2 * 9 * channels**2 * positions
        for units_saved, channels, positions in [(4, 16, 1024), (3, 32, 256)]
    )
    # With them go the heads after units 2 to 4, and 3 to 4.
    assert all_units - one == saved + 2 * (3 * 16 + 2 * 32)


@pytest.mark.parametrize("name", ["rnn_act_parity", "rnn_pact_parity"])
def test_a_recurrent_network_costs_what_is_traced(name):
    model = an.create_model(name, max_units=4)
    units = [[4, 2], [4, 1], [4, 3]]
    shape = (2,) if model.halting.rule == "act" else (2, 1, 1)
    blocks = []
    for number in units:
        number = jnp.asarray(number, jnp.int32).reshape(shape)
        more = jnp.zeros((*shape, 4))
        blocks.append(BlockTrace(0.0 * number, number, more, more, more, jnp.zeros(2), (1, 1)))
    output = ModelOutput(jnp.zeros((2, 8)), blocks=tuple(blocks))
    full, early = flops_per_image(model, output, image_size=(3, 5))
    # The very first update sees no input, so its product with the state is not among those traced.
    assert full == 2 * (an.count_macs(name, max_units=4) + 64 * 64)
    # 2 + 3 + 1 updates fewer, and the heads after units 3, 2 to 3, and none.
    assert full - early == 2 * (6 * 64 * 64 + 3 * 64)
    with pytest.raises(
        UserError,
        match=r"image_size is None; expected \(T, I\), the size of the inputs, with T = 3",
    ):
        flops_per_image(model, output)


def test_an_output_of_another_network_is_refused():
    model = an.create_model("resnet101_sact")
    with pytest.raises(UserError, match="output has 0 blocks; expected 4"):
        flops_per_image(model, ModelOutput(jnp.zeros((1, 1001))))
