"""Mean-field inference against closed forms, its gradients, and dropout masks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import integrate, stats

from adaptive_nets.ensembling.posterior import (
    DropoutNetwork,
    DropoutPosterior,
    MeanFieldNetwork,
    MeanFieldPosterior,
    init_mean_field,
    mean_field_optimiser,
)
from adaptive_nets.ensembling.posterior.dropout import drop
from adaptive_nets.ensembling.posterior.mean_field import (
    LOG_SIGMA,
    MEAN,
    kl_divergence,
    kl_gaussian,
    sample_params,
)
from adaptive_nets.layers.interception import kernel_paths
from adaptive_nets.models import create_model

SHAPE = (2, 8, 8, 3)


@pytest.fixture(scope="module")
def network():
    module = create_model("resnet20_cifar10", depth=8)
    images = jax.random.normal(jax.random.key(5), SHAPE)
    init = jax.jit(functools.partial(module.init, train=False))
    return module, init(jax.random.key(6), images), images


@pytest.mark.parametrize(("mean", "log_sigma", "variance"), [(0.3, -1.0, 0.5), (0.0, 0.2, 2.0)])
def test_divergence_agrees_with_numerical_integration(mean, log_sigma, variance):
    posterior = stats.norm(mean, np.exp(log_sigma))
    prior = stats.norm(0, np.sqrt(variance))
    expected, _ = integrate.quad(
        lambda w: posterior.pdf(w) * (posterior.logpdf(w) - prior.logpdf(w)), -15, 15, points=[mean]
    )
    found = kl_gaussian(jnp.float32(mean), jnp.float32(log_sigma), variance)
    assert float(found) == pytest.approx(expected, rel=1e-4)
    same = kl_gaussian(jnp.float32(0), jnp.float32(0.5 * np.log(variance)), variance)
    assert float(same) == pytest.approx(0, abs=1e-6)


def test_divergence_of_a_network_sums_all_kernels(network):
    _, variables, _ = network
    variational = init_mean_field(variables["params"], log_sigma=-5.0)
    kernels = kernel_paths(variables["params"])
    expected = sum(
        float(np.sum(np.log(0.1) + 5 + (np.exp(-10) + np.square(k)) / 0.02 - 0.5))
        for k in map(np.asarray, kernels.values())
    )
    assert float(kl_divergence(variational, 0.01)) == pytest.approx(expected, rel=1e-5)
    assert set(kernel_paths(variational[LOG_SIGMA])) == set(kernels)


def test_gradients_of_the_bound_are_finite_and_reach_every_parameter(network):
    module, variables, images = network
    wrapped = MeanFieldNetwork(module, log_sigma=-3.0)
    rest = {"batch_stats": variables["batch_stats"]}
    variational = init_mean_field(variables["params"], log_sigma=-3.0)

    def loss(params):
        logits, _ = wrapped.apply(
            {"params": params, **rest}, images, train=True, mutable=["batch_stats"],
            rngs={"noise": jax.random.key(1)},
        )  # fmt: skip
        return jnp.mean(jnp.square(logits)) + 1e-3 * kl_divergence(params, 0.1)

    gradients = jax.jit(jax.grad(loss))(variational)
    for leaf in jax.tree.leaves(gradients):
        assert np.all(np.isfinite(leaf))
        assert np.any(np.asarray(leaf) != 0)


def test_evaluation_uses_the_means_and_training_draws_weights(network):
    module, variables, images = network
    wrapped = MeanFieldNetwork(module, log_sigma=-3.0)
    rest = {"batch_stats": variables["batch_stats"]}
    variational = {"params": init_mean_field(variables["params"], log_sigma=-3.0), **rest}
    evaluated, plain = (
        jax.jit(functools.partial(network.apply, train=False))(inputs, images)
        for network, inputs in ((wrapped, variational), (module, variables))
    )
    np.testing.assert_array_equal(evaluated, plain)

    @jax.jit
    def trained(key, inputs):
        return wrapped.apply(
            inputs, images, train=True, mutable=["batch_stats"], rngs={"noise": key}
        )[0]

    first, second = (trained(jax.random.key(seed), variational) for seed in range(2))
    assert not np.allclose(first, second)
    narrow = {"params": init_mean_field(variables["params"], log_sigma=-12.0), **rest}
    train = functools.partial(module.apply, train=True, mutable=["batch_stats"])
    exact = jax.jit(train)(variables, images)[0]
    np.testing.assert_allclose(trained(jax.random.key(0), narrow), exact, atol=1e-2)


def test_samples_have_the_posteriors_mean_and_deviation():
    params = {"fc": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([3.0])}}
    variational = {MEAN: params, LOG_SIGMA: {"fc": {"kernel": jnp.log(jnp.array([[0.1, 0.4]]))}}}
    keys = jax.random.split(jax.random.key(0), 20_000)
    drawn = jax.vmap(lambda key: sample_params(key, variational)["fc"]["kernel"])(keys)
    np.testing.assert_allclose(np.mean(drawn, axis=0), [[1.0, -2.0]], atol=0.02)
    np.testing.assert_allclose(np.std(drawn, axis=0), [[0.1, 0.4]], rtol=0.03)
    members = MeanFieldPosterior(variational, {}).members(jax.random.key(0))
    assert next(members)["params"]["fc"]["bias"] == 3.0


def test_means_and_variances_have_optimisers_of_their_own():
    params = {MEAN: {"kernel": jnp.zeros(2)}, LOG_SIGMA: {"fc": jnp.zeros(2)}}
    optimiser = mean_field_optimiser(lambda step: 0.1, momentum=0.0, sigma_rate=1e-3)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = optimiser.update(ones, optimiser.init(params), params)
    moved = optax.apply_updates(params, updates)
    np.testing.assert_allclose(moved[MEAN]["kernel"], -0.1)
    np.testing.assert_allclose(moved[LOG_SIGMA]["fc"], -1e-3, rtol=1e-4)


def test_dropout_members_have_masks_of_their_own(network):
    module, variables, images = network
    wrapped = DropoutNetwork(module, rate=0.3)
    members = DropoutPosterior(variables).members(jax.random.key(2))
    first, second = next(members), next(members)
    outputs = [np.asarray(wrapped.apply(member, images)) for member in (first, first, second)]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert not np.allclose(outputs[0], outputs[2])
    again = next(DropoutPosterior(variables).members(jax.random.key(2), first=1))
    np.testing.assert_array_equal(wrapped.apply(again, images), outputs[2])
    plain = module.apply(variables, images, train=False)
    np.testing.assert_array_equal(wrapped.apply(variables, images), plain)


def test_dropout_keeps_the_mean():
    dropped = drop(jax.random.key(0), jnp.ones(50_000), rate=0.25)
    assert float(jnp.mean(dropped)) == pytest.approx(1, abs=0.01)
    assert float(jnp.mean(dropped == 0)) == pytest.approx(0.25, abs=0.01)
