"""Data sets in device memory: order, normalisation, augmentation, padding."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from adaptive_nets.data.device import (
    Augmentation,
    DeviceSplit,
    augment,
    epoch_order,
    normalisation,
    normalise,
    take_eval_batch,
    take_training_batch,
)
from adaptive_nets.training.config import DataConfig, MeshConfig
from adaptive_nets.training.mesh import batch_sharding, make_mesh, replicated

pytestmark = pytest.mark.core


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (23, 6, 5, 3)).astype(np.uint8)


def on_device(images, *, centre="channel", standardise=True, scale=255.0):
    config = DataConfig(pixel_scale=scale, centre=centre, standardise=standardise)
    offset, factor = normalisation(images, config)
    labels = np.arange(len(images), dtype=np.int32)
    arrays = {"image": jnp.asarray(images), "label": jnp.asarray(labels)}
    return DeviceSplit(arrays, jnp.asarray(offset), jnp.asarray(factor), jnp.float32(scale))


@pytest.mark.parametrize("centre", ["none", "channel", "pixel", "middle"])
@pytest.mark.parametrize("standardise", [False, True])
def test_normalisation_is_numpys(images, centre, standardise):
    data = on_device(images, centre=centre, standardise=standardise)
    scaled = images.astype(np.float64) / 255
    axes = {"channel": (0, 1, 2), "pixel": 0}.get(centre)
    mean = {"none": 0.0, "middle": 0.5}.get(centre, scaled.mean(axis=axes))
    deviation = scaled.std(axis=(0, 1, 2)) if standardise else 1.0
    np.testing.assert_allclose(
        normalise(data, data.images), (scaled - mean) / deviation, rtol=1e-5, atol=1e-6
    )


def test_an_epoch_visits_every_example_once_and_orders_differ(key):
    orders = [np.asarray(epoch_order(key, jnp.int32(e), 23)) for e in range(3)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(23))
    assert not np.array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[2], epoch_order(key, jnp.int32(2), 23))


def test_batches_follow_the_order_and_leave_the_rest_out(images, key):
    data = on_device(images)
    order = epoch_order(key, jnp.int32(0), 23)
    seen = []
    for step in range(10):
        batch = take_training_batch(
            data, order, jnp.int32(step), batch_size=5, key=key, augmentation=Augmentation()
        )
        seen.append(np.asarray(batch["label"]))
    np.testing.assert_array_equal(np.concatenate(seen[:4]), np.asarray(order)[:20])
    np.testing.assert_array_equal(seen[4], seen[0])
    np.testing.assert_allclose(batch["image"], normalise(data, data.images[seen[-1]]), rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_order_and_augmentation_are_the_same_on_any_number_of_devices(images, key, devices):
    data = on_device(np.concatenate([images, images[:1]]))
    augmentation = Augmentation(crop_padding=2, flip=True)

    def batch(data, order, sharding):
        return take_training_batch(
            data, order, jnp.int32(1), batch_size=8, key=key, augmentation=augmentation,
            sharding=sharding,
        )  # fmt: skip

    order = epoch_order(key, jnp.int32(3), 24)
    expected = batch(data, order, None)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]).reshape(-1, 1), ("data", "model"))
    placed = jax.device_put((data, order), replicated(mesh))
    sharded = jax.jit(lambda d, o: batch(d, o, batch_sharding(mesh)))(*placed)
    np.testing.assert_array_equal(sharded["label"], expected["label"])
    np.testing.assert_allclose(sharded["image"], expected["image"], atol=1e-6)
    assert sharded["image"].sharding.is_equivalent_to(NamedSharding(mesh, P("data")), 4)


def test_crops_and_flips_are_windows_of_the_padded_image(images, key):
    inputs = jnp.asarray(images, jnp.float32)
    outputs = np.asarray(augment(key, inputs, Augmentation(crop_padding=2, flip=True)))
    padded = np.pad(images.astype(np.float32), ((0, 0), (2, 2), (2, 2), (0, 0)))
    found = set()
    for image, output in zip(padded, outputs, strict=True):
        matches = [
            (top, left, flipped)
            for top, left, flipped in itertools.product(range(5), range(5), (False, True))
            if np.array_equal(
                output[:, ::-1] if flipped else output, image[top : top + 6, left : left + 5]
            )
        ]
        assert matches
        found.add(matches[0])
    assert len({flipped for *_, flipped in found}) == 2
    assert len({(top, left) for top, left, _ in found}) > 8


def test_flips_are_about_half(key):
    inputs = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], (4000, 1, 4, 1))
    outputs = np.asarray(augment(key, inputs, Augmentation(flip=True)))
    assert 0.45 < np.mean(outputs[:, 0, 0, 0] == 3.0) < 0.55


def test_no_augmentation_is_the_identity(images, key):
    inputs = jnp.asarray(images, jnp.float32)
    np.testing.assert_array_equal(augment(key, inputs, Augmentation()), inputs)


@pytest.mark.parametrize("batch_size", [1, 5, 23, 40])
def test_evaluation_counts_every_example_once(images, batch_size):
    data = on_device(images)
    counts = np.zeros(23)
    for start in range(0, 23, batch_size):
        batch = take_eval_batch(data, jnp.int32(start), batch_size=batch_size)
        np.add.at(counts, np.asarray(batch["label"]), np.asarray(batch["weight"]))
    np.testing.assert_array_equal(counts, 1)


def test_mesh_with_a_model_axis_divides_batches_over_the_data_axis_only():
    mesh = make_mesh(MeshConfig(model=2))
    assert dict(mesh.shape) == {"data": 2, "model": 2}
    x = jax.device_put(np.zeros((8, 3)), batch_sharding(mesh))
    assert {shard.data.shape for shard in x.addressable_shards} == {(4, 3)}
