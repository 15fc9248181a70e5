"""Adaptive losses are the same on one device as on several, images or channels divided."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_training import network, with_values

from adaptive_nets.data.device import DeviceSplit, finish_rows
from adaptive_nets.layers import SparseVDLayers
from adaptive_nets.models.adaptive.resnet_cifar import AdaptiveCifarResNet
from adaptive_nets.models.mlp import MultilayerPerceptron
from adaptive_nets.training.batches import labelled_image_shapes
from adaptive_nets.training.classification import classification, classification_task
from adaptive_nets.training.config import MeshConfig
from adaptive_nets.training.depth import adaptive_depth
from adaptive_nets.training.distributed import put
from adaptive_nets.training.mesh import (
    batch_sharding,
    eval_batch_size,
    make_mesh,
    replicated,
)
from adaptive_nets.training.program import make_program
from adaptive_nets.training.setup import set_up
from adaptive_nets.variational import kl_divergence

SHAPE, SIZE = (8, 8, 3), 8


def kl_task():
    model = MultilayerPerceptron(hidden=(16,), num_classes=4, layers=SparseVDLayers())
    penalty = lambda params, step: {"kl": kl_divergence(params) / 100}  # noqa: E731
    return classification_task(model, lambda timing: classification(penalty=penalty))


def ponder_task():
    model = AdaptiveCifarResNet((2,), num_classes=4, widths=(8,))
    objective = adaptive_depth(lambda step: jnp.float32(0.05))
    return classification_task(model, lambda timing: objective)


def metrics_on(task, config, devices, **mesh):
    """Metrics of two steps."""
    mesh_config = MeshConfig(shard_from=0, **mesh)
    program = make_program(
        task, with_values(config, mesh={"shard_from": 0, **mesh}),
        mesh=make_mesh(mesh_config, jax.devices()[:devices]),
        examples=64, rows=labelled_image_shapes(SHAPE), streamed=True,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    divided, copied = batch_sharding(program.mesh), replicated(program.mesh)
    images = rng.integers(0, 256, (SIZE, *SHAPE)).astype(np.uint8)
    labels = rng.integers(0, 4, SIZE).astype(np.int32)
    batch = DeviceSplit(
        {"image": put(images, divided), "label": put(labels, divided)},
        put(np.zeros((1, 1, 3), np.float32), copied), put(np.ones((1, 1, 3), np.float32), copied),
        put(np.float32(255), copied),
    )  # fmt: skip
    assert finish_rows(batch, batch.arrays)["image"].shape == images.shape
    key = np.asarray(jax.random.key_data(jax.random.key(1)))
    state = jax.jit(program.create, out_shardings=program.shardings)(key)
    step = jax.jit(program.train_step, out_shardings=program.shardings)
    for _ in range(2):
        state = step(state, batch)
    return {name: mean.value() for name, mean in state.metrics.items()}


@pytest.mark.parametrize(
    ("make", "name"),
    [
        pytest.param(kl_task, "kl", marks=pytest.mark.slow),
        pytest.param(ponder_task, "", marks=pytest.mark.slow),
    ],
)
def test_adaptive_losses_do_not_depend_on_the_devices(config, make, name):
    alone = metrics_on(make(), config, 1)
    assert alone[name] > 0 if name else len(alone) > 3
    for devices, mesh in ((2, {}), (4, {"model": 2, "shard_parameters": True})):
        found = metrics_on(make(), config, devices, **mesh)
        for metric, value in alone.items():
            assert found[metric] == pytest.approx(value, rel=2e-6, abs=1e-7), metric


@pytest.mark.parametrize("size", [1, 7, 22, 1000])
def test_evaluation_batches_of_any_size_count_every_example_once(config, dataset, size):
    """22 examples on 4 devices, beside the error computed with NumPy."""
    task = classification_task(network())
    setup = set_up(task, with_values(config, data={"eval_batch_size": size}), dataset, seed=0)
    variables = setup.create_state().eval_variables
    images = finish_rows(setup.test, setup.test.arrays)["image"]
    logits = np.asarray(task.model.apply(jax.device_get(variables), images, train=False))
    labels = np.asarray(setup.test.labels)
    found = setup.evaluate(variables, setup.test)
    assert found["count"] == len(labels) == 22
    assert found["error"] == pytest.approx(np.mean(logits.argmax(axis=1) != labels), rel=1e-6)
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(22), labels]
    assert found["nll"] == pytest.approx(expected.mean(), rel=1e-5)


def test_evaluation_batches_are_rounded_up():
    mesh = make_mesh(MeshConfig(), jax.devices()[:4])
    assert [eval_batch_size(mesh, n) for n in (1, 4, 5, 500)] == [4, 4, 8, 500]
    split = make_mesh(MeshConfig(model=2), jax.devices()[:4])
    assert eval_batch_size(split, 5) == 6
