"""Kronecker factors against explicit sums, and the covariance of sampled matrices."""

from __future__ import annotations

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.ensembling.posterior import KfacPosterior, kronecker_factors
from adaptive_nets.ensembling.posterior.kfac import (
    batch_factors,
    damped_cholesky,
    sample_matrix,
)
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError


class Linear(nn.Module):
    """One dense layer of three classes."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(3, name="fc")(x)


class Convolution(nn.Module):
    """A strided convolution and the mean of its outputs."""

    use_bias: bool = True

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(
            3, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)), use_bias=self.use_bias, name="conv"
        )(x)
        return jnp.mean(jnp.tanh(x), axis=(1, 2))


def sampled_labels(key, module, variables, x) -> np.ndarray:
    return np.asarray(jax.random.categorical(key, jax.jit(module.apply)(variables, x)))


def test_factors_of_a_dense_layer_are_the_explicit_moments(key):
    module, x = Linear(), jax.random.normal(jax.random.key(1), (6, 4))
    variables = jax.jit(module.init)(jax.random.key(2), x)
    found = batch_factors(key, module, variables, x)["fc"]
    logits = np.asarray(module.apply(variables, x), np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    g = probs - np.eye(3)[sampled_labels(key, module, variables, x)]
    a = np.concatenate([np.asarray(x), np.ones((6, 1))], axis=1)
    np.testing.assert_allclose(found.inputs, a.T @ a / 6, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.outputs, g.T @ g / 6, rtol=1e-4, atol=1e-6)


def test_the_product_of_the_factors_is_the_fisher_matrix_of_equal_inputs(key):
    """If every input is the same, A ⊗ G is the exact Fisher matrix of the sampled labels."""
    module, x = Linear(), jnp.tile(jnp.array([[1.0, -2.0, 0.5]]), (400, 1))
    variables = jax.jit(module.init)(jax.random.key(2), x)
    found = batch_factors(key, module, variables, x)["fc"]
    labels = sampled_labels(key, module, variables, x)

    def log_prob(matrix, x, label):
        params = {"fc": {"kernel": matrix[:-1], "bias": matrix[-1]}}
        return jax.nn.log_softmax(module.apply({"params": params}, x[None])[0])[label]

    fc = variables["params"]["fc"]
    matrix = jnp.concatenate([fc["kernel"], fc["bias"][None]])
    gradients = jax.vmap(jax.grad(log_prob), (None, 0, 0))(matrix, x, labels).reshape(400, -1)
    fisher = gradients.T @ gradients / 400
    np.testing.assert_allclose(np.kron(found.inputs, found.outputs), fisher, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_factors_of_a_convolution_sum_explicit_patches(key, use_bias):
    module, x = Convolution(use_bias), jax.random.normal(jax.random.key(1), (2, 5, 5, 2))
    variables = jax.jit(module.init)(jax.random.key(2), x)
    kernel = variables["params"]["conv"]["kernel"]
    found = batch_factors(key, module, variables, x)["conv"]
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = [
        padded[n, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].ravel()
        for n, i, j in itertools.product(range(2), range(3), range(3))
    ]
    a = np.stack(rows)
    outputs = a @ np.asarray(kernel).reshape(-1, 3)
    if use_bias:
        outputs += np.asarray(variables["params"]["conv"]["bias"])
        a = np.concatenate([a, np.ones((len(a), 1))], axis=1)
    np.testing.assert_allclose(found.inputs, a.T @ a / 2, rtol=1e-4, atol=1e-5)
    means = np.tanh(outputs).reshape(2, 9, 3).mean(axis=1)
    np.testing.assert_allclose(module.apply(variables, x), means, rtol=1e-4, atol=1e-5)
    probs = np.exp(means) / np.exp(means).sum(axis=1, keepdims=True)
    of_logits = probs - np.eye(3)[sampled_labels(key, module, variables, x)]
    g = np.repeat(of_logits, 9, axis=0) / 9 * (1 - np.tanh(outputs) ** 2)
    np.testing.assert_allclose(found.outputs, g.T @ g / 18, rtol=1e-3, atol=1e-8)


def test_sampled_matrices_have_the_kronecker_covariance(rng, key):
    def factor(size):
        root = rng.normal(size=(size, size)).astype(np.float32)
        return jnp.array(root @ root.T / size)

    a, g = factor(3), factor(2)
    lower = [damped_cholesky(f, examples=4, precision=1.0) for f in (a, g)]
    keys = jax.random.split(key, 40_000)
    drawn = np.asarray(jax.vmap(lambda key: sample_matrix(key, *lower))(keys)).reshape(-1, 6)
    inverses = [np.linalg.inv(2 * np.asarray(f) + np.eye(len(f))) for f in (a, g)]
    np.testing.assert_allclose(np.cov(drawn.T), np.kron(*inverses), atol=0.02)


@pytest.mark.slow
def test_members_of_a_network_change_every_kernel_and_nothing_else(key):
    module = create_model("resnet20_cifar10", depth=8)
    images = jax.random.normal(jax.random.key(5), (4, 8, 8, 3))
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(6), images)
    factors = kronecker_factors(key, module, variables, [images[:2], images[2:]])
    assert set(factors) == {
        "conv1", "linear", *(f"layer{s}_0/conv{c}" for s in (1, 2, 3) for c in (1, 2))
    }  # fmt: skip
    posterior = KfacPosterior(variables, factors, examples=100, precision=10.0, scale=0.5)
    member = next(posterior.members(key))
    changed = jax.tree_util.tree_map_with_path(
        lambda path, old, new: (path[-1].key, bool(np.any(old != new))), dict(variables), member
    )
    leaves = jax.tree.leaves(changed, is_leaf=lambda x: isinstance(x, tuple))
    assert {name for name, differs in leaves if differs} == {"kernel", "bias"}
    assert all(differs for name, differs in leaves if name == "kernel")
    still = next(KfacPosterior(variables, factors, 100, 10.0, scale=0.0).members(key))
    for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(still), strict=True):
        np.testing.assert_array_equal(old, new)


def test_factors_need_a_batch(key):
    with pytest.raises(UserError, match="batches are empty"):
        kronecker_factors(key, Linear(), {}, [])
