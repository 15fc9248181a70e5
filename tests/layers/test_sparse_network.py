"""Sparse variational dropout in any network: against the plain network and the written-out one."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, cifar, initial
from tolerances import close

from adaptive_nets.layers import SparseConv, SparseDense, sparse_network
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.sparse_network import LOG_SIGMA2, SparseNetwork
from adaptive_nets.models import full_output_method
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational import kl_divergence, layer_sparsity, prune
from adaptive_nets.variational.pruning import plain_params


class Plain(nn.Module):
    """A strided convolution and a dense layer."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(Conv(4, (3, 3), strides=2, padding=1, name="conv1")(x))
        return nn.Dense(3, name="fc")(x.reshape(len(x), -1))


class Written(nn.Module):
    """The same network, written with variational layers."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.relu(SparseConv(4, (3, 3), strides=2, padding=1, name="conv1")(x, train))
        return SparseDense(3, name="fc")(x.reshape(len(x), -1), train)


@pytest.fixture
def images(rng) -> jax.Array:
    return jnp.asarray(rng.normal(size=(2, 6, 5, 3)), jnp.float32)


def noisy(variables, values):
    """Sets log σ² of all weights: drawn around a value, so that some weights are removed."""
    generator = np.random.default_rng(2)

    def replace(path, leaf):
        if path[-1].key != LOG_SIGMA2:
            return leaf
        return jnp.asarray(generator.normal(values, 3, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(replace, variables)


def test_it_is_the_network_written_with_variational_layers(key, images):
    network = SparseNetwork(Plain())
    variables = noisy(network.init(key, images), -3.0)
    written = jax.eval_shape(lambda: Written().init(key, images))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, written)
    close(network.apply(variables, images), Written().apply(variables, images), terms=64)
    kept = [layer.kept for layer in layer_sparsity(variables["params"])]
    assert 0 < kept[0] < 108
    pruned = {"params": prune(variables["params"])}
    close(network.apply(variables, images), Plain().apply(pruned, images), terms=64)


def test_training_has_the_moments_of_the_written_network(key, images):
    network = SparseNetwork(Plain())
    variables = noisy(network.init(key, images), -6.0)
    # A written dense layer keeps the noise of removed weights; here it has hardly any.
    dense = variables["params"]["fc"]
    dense[LOG_SIGMA2] = jnp.full_like(dense[LOG_SIGMA2], -60.0)
    keys = jax.random.split(key, 3000)

    def drawn(module):
        run = lambda k: module.apply(variables, images, train=True, rngs={"noise": k})  # noqa: E731
        return np.asarray(jax.jit(jax.vmap(run))(keys), np.float64)

    ours, theirs = drawn(network), drawn(Written())
    error = theirs.std(0) / np.sqrt(len(keys))
    assert np.all(np.abs(ours.mean(0) - theirs.mean(0)) < 6 * error + 1e-6)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.15)


@pytest.mark.parametrize("rule", ["sact", pytest.param("pact", marks=pytest.mark.slow)])
def test_a_network_of_adaptive_depth_keeps_its_blocks(key, rule, monkeypatch):
    # Without noise the outputs are exact; log α is at least −8, so that noise never vanishes.
    monkeypatch.setattr(
        sparse_network, "sample_linear", lambda key, x, theta, sigma2, linear: linear(x, theta)
    )
    model = cifar(rule)
    network = SparseNetwork(model, log_sigma2_init=-4.0, threshold=100.0, kept="*_head/*")
    params = initial(model)["params"]
    variables = {**initial(model), "params": network.with_noise(params)}
    assert jax.tree.structure(plain_params(variables["params"])) == jax.tree.structure(params)
    assert not any("_head/" in layer.layer for layer in layer_sparsity(variables["params"]))
    options = full_output_method(network) | {"mutable": ["batch_stats"]}
    rngs = {"noise": key, "halting": key}

    @jax.jit
    def loss(params):
        given = {**variables, "params": params}
        output, _ = network.apply(given, IMAGES, True, rngs=rngs, **options)
        return jnp.sum(output.logits**2), output

    (_, output), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
    plain, _ = model.apply(initial(model), IMAGES, True, rngs=rngs, **options)
    close(output.logits, plain.logits, terms=200)
    assert len(output.blocks) == len(plain.blocks)
    assert np.any(gradient["conv1"]["kernel"])
    divergence = jax.grad(kl_divergence)(variables["params"])
    for layer in layer_sparsity(variables["params"]):
        leaves = divergence
        for name in layer.layer.split("/"):
            leaves = leaves[name]
        assert np.mean(np.asarray(leaves[LOG_SIGMA2]) < 0) > 0.5, layer.layer


def test_patterns_choose_layers(key, images):
    network = SparseNetwork(Plain(), layers="fc*")
    params = network.init(key, images)["params"]
    assert [layer.layer for layer in layer_sparsity(params)] == ["fc"]
    with pytest.raises(UserError, match="layers is 'conv9'; expected a pattern of conv1, fc"):
        SparseNetwork(Plain(), layers="conv9").init(key, images)
