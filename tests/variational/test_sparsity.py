"""Counting, warming up and pruning."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.variational import (
    compression,
    keep_mask,
    kl_divergence,
    kl_log_uniform,
    layer_sparsity,
    linear_warmup,
    log_alpha,
    prune,
)

pytestmark = pytest.mark.core


def layer(log_rates, theta=0.5):
    rates = jnp.asarray(log_rates, jnp.float32)
    kernel = jnp.full(rates.shape, theta)
    return {
        "kernel": kernel,
        "log_sigma2": rates + jnp.log(kernel**2),
        "bias": jnp.arange(rates.shape[-1], dtype=jnp.float32),
    }


@pytest.fixture
def params():
    return {
        "block": {"conv1": layer([[1.0, 5.0], [2.0, 9.0]])},
        "fc1": layer([[-3.0, 4.0, 2.9]]),
        "plain": {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2)},
    }


def test_counts_weights_of_variational_layers_only(params):
    layers = layer_sparsity(params)
    assert [(x.layer, x.weights, x.kept) for x in layers] == [("block/conv1", 4, 2), ("fc1", 3, 2)]
    assert layers[0].sparsity == 0.5
    assert compression(layers) == pytest.approx(7 / 4)


@pytest.mark.parametrize(("threshold", "kept"), [(-10.0, 0), (1.5, 2), (3.0, 4), (100.0, 7)])
def test_more_is_kept_with_a_higher_threshold(params, threshold, kept):
    assert sum(x.kept for x in layer_sparsity(params, threshold=threshold)) == kept


def test_compression_of_an_empty_network_is_infinite(params):
    assert compression(layer_sparsity(params, threshold=-10.0)) == float("inf")


def test_a_weight_at_the_threshold_is_removed():
    theta, log_sigma2 = jnp.float32(1.0), jnp.float32(3.0)
    assert not bool(keep_mask(theta, log_sigma2, threshold=3.0))
    assert bool(keep_mask(theta, log_sigma2, threshold=3.0001))


def test_divergence_sums_over_layers(params):
    expected = sum(
        float(jnp.sum(kl_log_uniform(log_alpha(x["kernel"], x["log_sigma2"]))))
        for x in (params["block"]["conv1"], params["fc1"])
    )
    assert float(kl_divergence(params)) == pytest.approx(expected, rel=1e-6)
    assert float(kl_divergence({"fc": {"kernel": jnp.ones((2, 2))}})) == 0.0


def test_warm_up_is_zero_then_linear_then_one():
    steps = np.array([0, 9, 10, 15, 20, 1000])
    values = [float(linear_warmup(s, start=10, end=20)) for s in steps]
    np.testing.assert_allclose(values, [0, 0, 0, 0.5, 1, 1])


def test_warm_up_of_no_length_is_a_switch():
    assert [float(linear_warmup(s, start=5, end=5)) for s in (4, 5, 6)] == [0.0, 0.0, 1.0]


def test_pruning_keeps_the_tree_without_variances(params):
    pruned = prune(params)
    assert set(pruned["fc1"]) == {"kernel", "bias"}
    np.testing.assert_array_equal(pruned["block"]["conv1"]["kernel"], [[0.5, 0], [0.5, 0]])
    np.testing.assert_array_equal(pruned["plain"]["kernel"], params["plain"]["kernel"])
    np.testing.assert_array_equal(pruned["fc1"]["bias"], params["fc1"]["bias"])
