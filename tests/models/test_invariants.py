"""What every registered model must do."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models import logits_of, model_entry
from adaptive_nets.training.step import STREAMS

pytestmark = pytest.mark.core
NAMES = an.list_models()


@pytest.fixture(scope="module", params=NAMES)
def made(request):
    """Name, module, variables and a batch of five."""
    entry = model_entry(request.param)
    model = an.create_model(request.param)
    images = jax.random.normal(jax.random.key(1), (5, *entry.input_shape))
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images)
    return request.param, model, variables, images


def test_logits_have_the_right_shape(made):
    name, model, variables, images = made
    logits = logits_of(model.apply(variables, images, train=False))
    assert logits.shape == (5, model_entry(name).num_classes)
    assert logits.dtype == jnp.float32
    assert np.all(np.isfinite(logits))


def test_jit_equals_eager(made):
    _, model, variables, images = made
    eager = model.apply(variables, images, train=False)
    close(
        jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images), eager, terms=1000
    )


def test_an_example_does_not_depend_on_its_neighbours(made):
    _, model, variables, images = made
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    whole = np.asarray(apply(variables, images))
    order = np.array([3, 1, 4, 0, 2])
    close(apply(variables, images[order]), whole[order], terms=1000)
    padded = jnp.concatenate([images[:2], jnp.full_like(images[2:], 1e3)])
    close(np.asarray(apply(variables, padded))[:2], whole[:2], terms=1000)


def test_gradients_are_finite_and_reach_every_parameter(made):
    _, model, variables, images = made
    rngs = dict(zip(STREAMS, jax.random.split(jax.random.key(2), len(STREAMS)), strict=True))

    @jax.jit
    def gradient(params):
        def loss(params):
            logits = logits_of(model.apply({"params": params}, images, train=True, rngs=rngs))
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(np.asarray(leaf) != 0), path


def test_low_precision_keeps_float32_parameters(made):
    name, _, variables, images = made
    low = an.create_model(name, dtype=jnp.bfloat16)
    logits = low.apply(variables, images, train=False)
    assert logits.dtype == jnp.bfloat16
    shapes = jax.eval_shape(lambda x: low.init(jax.random.key(0), x, train=False), images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", NAMES)
def test_another_number_of_classes(name):
    model = an.create_model(name, num_classes=3)
    shape = (2, *model_entry(name).input_shape)
    logits = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct(shape, jnp.float32),
    )
    assert logits.shape == (2, 3)


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_sparse_vd")])
def test_a_variational_network_is_its_plain_one_with_variances(name):
    plain = name.removesuffix("_sparse_vd")
    assert an.count_macs(name) == an.count_macs(plain)
    assert model_entry(name).input_shape == model_entry(plain).input_shape
