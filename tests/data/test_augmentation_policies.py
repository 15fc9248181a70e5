"""Sub-policies, their pool, and the training policy."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.data.augmentations import (
    CIFAR_OPERATIONS,
    IMAGENET_OPERATIONS,
    OPERATIONS,
    RandomAugment,
    apply_operation,
    apply_per_image,
    apply_sub_policy,
    crop_and_flip,
    operation_index,
    operation_value,
    random_sub_policies,
)
from adaptive_nets.data.augmentations.sub_policy import draw_parts, transform
from adaptive_nets.data.device import Augmentation, DeviceSplit, finish_rows
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


COUNT = 90
"""Images of every test, so that the tests share their programs."""


@pytest.fixture
def images(rng):
    """Smooth images with an edge, of integral values; float32[90, 18, 17, 3]."""
    smooth = rng.normal(size=(COUNT, 18, 17, 3)).cumsum(1).cumsum(2)
    smooth[:, :, 6:] += 4
    smooth -= smooth.min((1, 2, 3), keepdims=True)
    smooth *= rng.uniform(100, 255, (COUNT, 1, 1, 1)) / smooth.max((1, 2, 3), keepdims=True)
    return jnp.asarray(np.floor(smooth), jnp.float32)


@pytest.fixture
def same(images):
    """One image many times."""
    return jnp.repeat(images[:1], COUNT, axis=0)


@functools.partial(jax.jit, static_argnames="outside")
def every_operation(key, images, magnitude, outside):
    """Applies each operation by itself, whatever the magnitude."""
    parts = draw_parts(key, images)
    values = [jnp.broadcast_to(operation_value(o, magnitude), COUNT) for o in OPERATIONS]
    return [
        transform(o.name, images, value, parts, outside=outside)
        for o, value in zip(OPERATIONS, values, strict=True)
    ]


def integral(images):
    images = np.asarray(images)
    assert images.dtype == np.float32
    return (images == np.floor(images)).all() and images.min() >= 0 and images.max() <= 255


def test_the_table_is_that_of_the_paper():
    assert len(OPERATIONS) == len(IMAGENET_OPERATIONS) == 18
    assert [o.name for o in CIFAR_OPERATIONS][-1] == "Cutout"
    assert [o.name for o in OPERATIONS if o.signed] == [
        "Contrast",
        "Color",
        "Brightness",
        "Sharpness",
    ]
    assert [operation_index(o.name) for o in OPERATIONS] == list(range(18))
    with pytest.raises(UserError, match=r"'Rotat'; did you mean 'Rotate'\?"):
        operation_index("Rotat")


@pytest.mark.parametrize(
    ("name", "magnitude", "value"),
    [
        ("Rotate", -30.0, 40.0),
        ("Rotate", 45.0, 60.0),
        ("Solarize", -45.0, 64.0),
        ("Posterize", 45.0, -1.0),
        ("Brightness", -45.0, -1.2),
        ("Color", 15.0, 0.45),
        ("RandomResizedCrop", 30.0, 0.08),
    ],
)
def test_magnitudes_map_linearly_and_extrapolate(name, magnitude, value):
    operation = OPERATIONS[operation_index(name)]
    np.testing.assert_allclose(operation_value(operation, magnitude), value, rtol=1e-5)


# The protocols share the branches; other tests compare operations under either with Pillow.
@pytest.mark.parametrize("protocol", ["cifar", pytest.param("imagenet", marks=pytest.mark.slow)])
def test_an_index_chooses_the_operation(protocol, images, key):
    outside = {"cifar": "reflect", "imagenet": "black"}[protocol]
    expected = every_operation(key, images, -33.0, outside)
    for i, operation in enumerate(OPERATIONS):
        found = apply_operation(key, images, i, -33.0, protocol=protocol)
        assert integral(found)
        # Programs that fuse differently may round an integer up to rounding errors differently.
        assert np.abs(found - expected[i]).max() <= 1
        assert np.mean(found != expected[i]) < 0.01
        changed = (np.asarray(found) != images).any((1, 2, 3)).mean()
        assert changed == 0 if operation.name == "Identity" else changed > 0.5, operation


def test_small_magnitudes_are_skipped_under_the_cifar_protocol_only(images, key):
    for name in ("Posterize", "AutoContrast", "Invert"):
        index = operation_index(name)
        for magnitude in (0.0, 0.49, -0.49):
            found = apply_operation(key, images, index, magnitude, protocol="cifar")
            np.testing.assert_array_equal(found, images)
        found = apply_operation(key, images, index, 0.5, protocol="cifar")
        assert np.any(found != images)
        found = apply_operation(key, images, index, 0.49, protocol="imagenet")
        assert np.any(found != images)


@pytest.mark.parametrize("name", ["ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"])
def test_directions_differ_between_images_but_not_between_calls(name, same, key):
    index = operation_index(name)
    found = np.asarray(apply_operation(key, same, index, 30.0, protocol="cifar"))
    again = apply_operation(key, same, index, 30.0, protocol="cifar")
    np.testing.assert_array_equal(found, again)
    kinds, counts = np.unique(found.reshape(COUNT, -1), axis=0, return_counts=True)
    # Two directions; shears also start at either border.
    assert len(kinds) == (4 if name.startswith("Shear") else 2)
    assert counts.min() > 8
    # The sign of the magnitude does not matter.
    opposite = apply_operation(key, same, index, -30.0, protocol="cifar")
    np.testing.assert_array_equal(found, opposite)
    other = apply_operation(jax.random.key(1), same, index, 30.0, protocol="cifar")
    assert np.any(found != other)


def test_squares_and_crops_differ_between_images(same, key):
    for name in ("Cutout", "RandomResizedCrop"):
        found = apply_operation(key, same, operation_index(name), 20.0, protocol="imagenet")
        assert len(np.unique(np.asarray(found).reshape(COUNT, -1), axis=0)) > 20


def test_a_sub_policy_is_its_operations_in_order(images, same, key):
    indices, magnitudes = np.array([7, 12, 6], np.int32), np.array([20.0, -20.0, 9.0], np.float32)
    apply = functools.partial(apply_sub_policy, protocol="cifar", crop=False)
    found = apply(key, images, indices, magnitudes)
    expected = images
    for i, m in zip(indices, magnitudes, strict=True):
        expected = apply_operation(key, expected, i, m, protocol="cifar")
    np.testing.assert_array_equal(found, expected)
    assert np.any(found != apply(key, images, indices[::-1], magnitudes[::-1]))
    # Each operation draws its own random parts: shifts by +, + and by +, - and by -, -.
    moved = apply(key, same, np.array([3, 3, 0]), np.array([6.0, 6.0, 0.0]))
    assert len(np.unique(np.asarray(moved).reshape(COUNT, -1), axis=0)) >= 3


def test_a_sub_policy_of_nothing_crops_or_returns_the_images(images, key):
    none = np.zeros(0, np.int32), np.zeros(0, np.float32)
    plain = apply_sub_policy(key, images, *none, protocol="cifar", crop=False)
    np.testing.assert_array_equal(plain, images)
    plain = apply_sub_policy(key, images, *none, protocol="imagenet")
    np.testing.assert_array_equal(plain, images)
    cropped = apply_sub_policy(key, images, *none, protocol="cifar")
    np.testing.assert_array_equal(cropped, crop_and_flip(jax.random.split(key)[1], images))
    assert np.any(cropped != images)


def test_one_program_serves_all_sub_policies(images, key, rng):
    traces = []

    @jax.jit
    def run(key, images, indices, magnitudes):
        traces.append(1)
        return apply_sub_policy(key, images, indices, magnitudes, protocol="cifar", crop=False)

    drawn = random_sub_policies(rng, 12, operations=3, magnitude=45.0, protocol="cifar")
    for indices, magnitudes in zip(*drawn, strict=True):
        found = run(key, images, indices, magnitudes)
        assert found.shape == images.shape
        assert integral(found)
        # A call outside of a larger program gives the same, and compiles nothing anew.
        alone = apply_sub_policy(key, images, indices, magnitudes, protocol="cifar", crop=False)
        np.testing.assert_array_equal(found, alone)
    assert len(traces) == 1


@pytest.mark.parametrize("name", ["ShearX", "Cutout", "Color"])
def test_an_operation_is_the_same_without_compilation(name, images, key):
    index = operation_index(name)
    found = apply_operation(key, images, index, 21.0, protocol="cifar")
    with jax.disable_jit():
        eager = apply_operation(key, images, index, 21.0, protocol="cifar")
    assert np.abs(found - eager).max() <= 1
    assert np.mean(found != eager) < 1e-3


def test_wrong_images_and_unknown_indices_are_refused(images, key):
    with pytest.raises(ValueError, match=r"expected \[N, H, W, 3\]"):
        apply_operation(key, images[..., :1], 0, 1.0, protocol="cifar")
    with pytest.raises(ValueError, match="expected 0 to 17"):
        apply_sub_policy(key, images, np.array([18]), np.ones(1), protocol="cifar")
    with pytest.raises(ValueError, match="expected 0 to 17"):
        apply_operation(key, images, -1, 1.0, protocol="cifar")


def test_the_pool_is_uniform(rng):
    indices, magnitudes = random_sub_policies(
        rng, 3000, operations=3, magnitude=20.0, protocol="cifar"
    )
    assert indices.shape == magnitudes.shape == (3000, 3)
    assert (indices.dtype, magnitudes.dtype) == (np.int32, np.float32)
    shares = np.bincount(indices.ravel(), minlength=15) / 9000
    assert len(shares) == 15
    np.testing.assert_allclose(shares, 1 / 15, atol=0.015)
    assert np.abs(magnitudes).max() <= 20
    np.testing.assert_allclose(magnitudes.mean(), 0, atol=0.6)
    np.testing.assert_allclose(np.abs(magnitudes).mean(), 10, atol=0.3)


def test_the_pool_of_imagenet_starts_with_the_crop(rng):
    indices, magnitudes = random_sub_policies(
        rng, 500, operations=2, magnitude=20.0, protocol="imagenet"
    )
    assert indices.shape == magnitudes.shape == (500, 3)
    assert (indices[:, 0] == 15).all()
    assert set(indices[:, 1:].ravel()) == set(range(18)) - {15}
    alone, _ = random_sub_policies(rng, 4, operations=0, magnitude=9.0, protocol="imagenet")
    np.testing.assert_array_equal(alone, np.full((4, 1), 15))


@pytest.mark.parametrize("magnitude", [-45.0, -13.3, 0.2, 21.0])
def test_operations_chosen_per_image_are_those_of_a_whole_batch(magnitude, images, key):
    index = np.arange(COUNT) % 15
    magnitudes = jnp.full((COUNT, 1), magnitude)
    found = apply_per_image(key, images, jnp.asarray(index)[:, None], magnitudes)
    assert integral(found)
    expected = every_operation(jax.random.split(key, 1)[0], images, magnitude, "reflect")
    for i in range(15):
        # Training does not skip small magnitudes.
        apart = np.abs(np.asarray(found - expected[i]))[index == i]
        assert apart.max() <= 1, OPERATIONS[i]
        assert np.mean(apart > 0) <= 0.005, OPERATIONS[i]


def test_every_operation_occurs_in_training(images, key, monkeypatch):
    seen = []
    module = "adaptive_nets.data.augmentations.random_augment.apply_per_image"
    monkeypatch.setattr(module, lambda key, images, *drawn: seen.append(drawn) or images)
    many = jnp.zeros((3000, 1, 1, 3))
    RandomAugment(operations=2, magnitude=30.0)(key, many)
    indices, magnitudes = map(np.asarray, seen[0])
    shares = np.bincount(indices.ravel(), minlength=15) / 6000
    np.testing.assert_allclose(shares, np.full(15, 1 / 15), atol=0.015)
    assert np.abs(magnitudes).max() <= 30
    assert abs((magnitudes < 0).mean() - 0.5) < 0.03
    assert abs(np.corrcoef(magnitudes.T)[0, 1]) < 0.08


def test_training_changes_each_image_in_its_own_way(same, key):
    augment = jax.jit(RandomAugment())
    found = np.asarray(augment(key, same))
    assert found.shape == same.shape
    assert integral(found)
    assert len(np.unique(found.reshape(COUNT, -1), axis=0)) > 75
    np.testing.assert_array_equal(found, augment(key, same))
    assert np.any(found != augment(jax.random.key(2), same))


def test_training_without_operations_crops(images, key):
    plain = RandomAugment(operations=0, crop=False)(key, images)
    np.testing.assert_array_equal(plain, images)
    cropped = RandomAugment(operations=0)(key, images)
    np.testing.assert_array_equal(cropped, crop_and_flip(jax.random.split(key, 4)[3], images))
    assert dataclasses.asdict(RandomAugment()) == {
        "operations": 3,
        "magnitude": 45.0,
        "crop": True,
    }


def test_a_training_set_takes_random_operations_before_it_is_normalised(rng):
    images = jnp.asarray(rng.integers(0, 256, (8, 9, 7, 3)), jnp.uint8)
    finish = jax.jit(finish_rows, static_argnames="augmentation")
    data = DeviceSplit(
        {"image": images}, jnp.zeros((1, 1, 3)), jnp.ones((1, 1, 3)), jnp.float32(1.0)
    )
    key = jax.random.key(2)
    some = Augmentation(random_operations=2, random_magnitude=30.0)
    rows = finish(data, data.arrays, key=key, augmentation=some)
    found = np.asarray(rows["image"])
    assert found.min() >= 0
    assert found.max() <= 255
    np.testing.assert_array_equal(found, np.round(found))
    assert (found != np.asarray(images)).any()
    # Crops and flips draw the same numbers with and without them: only their padding is zero.
    shifted = dataclasses.replace(data, offset=jnp.full((1, 1, 3), -1.0))
    padding = [
        np.asarray(finish(shifted, data.arrays, key=key, augmentation=a)["image"] == 0)
        for a in (Augmentation(1, True), Augmentation(1, True, False, 2))
    ]
    np.testing.assert_array_equal(padding[0], padding[1])
