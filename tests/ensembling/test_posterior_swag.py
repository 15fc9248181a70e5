"""SWAG: running moments against NumPy, and the covariance of samples against its formula."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.ensembling.posterior import SwagMoments, SwagPosterior, sample_swag
from adaptive_nets.runtime.errors import UserError


def moments_of(iterates: np.ndarray, rank: int) -> SwagMoments:
    moments = SwagMoments.empty({"a": jnp.zeros(2), "b": jnp.zeros((1, 1))})
    for row in iterates:
        moments = moments.add({"a": jnp.array(row[:2]), "b": jnp.array([[row[2]]])}, rank=rank)
    return moments


def flat(tree) -> np.ndarray:
    return np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"])])


def test_moments_are_those_of_the_iterates(rng):
    iterates = rng.normal(size=(7, 3)).astype(np.float32)
    moments = moments_of(iterates, rank=4)
    assert moments.count == 7
    np.testing.assert_allclose(flat(moments.mean), iterates.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(flat(moments.square), (iterates**2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(flat(moments.variance()), iterates.var(axis=0), rtol=1e-4)
    assert len(moments.deviations) == 4
    for i, deviation in enumerate(moments.deviations, start=3):
        expected = iterates[i] - iterates[: i + 1].mean(axis=0)
        np.testing.assert_allclose(flat(deviation), expected, rtol=1e-4, atol=1e-5)


def test_samples_have_the_covariance_of_the_formula(rng, key):
    iterates = rng.normal(size=(6, 3)).astype(np.float32)
    moments = moments_of(iterates, rank=5)
    keys = jax.random.split(key, 20_000)
    drawn = jax.vmap(lambda key: sample_swag(key, moments, scale=0.5))(keys)
    samples = np.concatenate([np.reshape(drawn["a"], (-1, 2)), np.reshape(drawn["b"], (-1, 1))], 1)
    deviations = np.stack([flat(d) for d in moments.deviations], axis=1)
    expected = 0.5 * (np.diag(iterates.var(axis=0)) + deviations @ deviations.T / 4)
    np.testing.assert_allclose(samples.mean(axis=0), iterates.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.03)


def test_scale_zero_is_the_average_of_weights(rng, key):
    moments = moments_of(rng.normal(size=(3, 3)).astype(np.float32), rank=2)
    np.testing.assert_allclose(flat(sample_swag(key, moments, scale=0.0)), flat(moments.mean))


def test_one_iterate_is_refused(rng, key):
    with pytest.raises(UserError, match="1 deviations; expected at least 2 iterates"):
        sample_swag(key, moments_of(rng.normal(size=(1, 3)), rank=20))


def test_members_are_the_same_for_the_same_key_and_start_anywhere(rng, key):
    moments = moments_of(rng.normal(size=(4, 3)).astype(np.float32), rank=3)
    estimated = []

    def estimate(variables):
        estimated.append(variables)
        return variables

    posterior = SwagPosterior(moments, {"batch_stats": {"mean": jnp.ones(2)}}, estimate)
    members = posterior.members(key)
    first, second = next(members), next(members)
    again = next(posterior.members(key, first=1))
    np.testing.assert_array_equal(flat(second["params"]), flat(again["params"]))
    assert not np.array_equal(flat(first["params"]), flat(second["params"]))
    assert set(first) == {"params", "batch_stats"}
    assert len(estimated) == 3
