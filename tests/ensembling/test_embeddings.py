"""Mean embeddings: the identity of linear heads, norms and invariance to a group of flips."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from tolerances import close

from adaptive_nets.ensembling import mean_embedding

pytestmark = pytest.mark.core


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 5), (2, 7, 11), (5, 32, 3)])
def test_mean_equals_a_loop_over_views(shape, rng):
    features = rng.normal(size=shape).astype(np.float32)
    expected = np.zeros((shape[0], shape[2]))
    for i in range(shape[0]):
        for s in range(shape[1]):
            expected[i] += features[i, s].astype(np.float64) / shape[1]
    found = mean_embedding(features)
    assert found.dtype == jnp.float32
    close(found, expected, terms=shape[1])
    close(jax.jit(mean_embedding)(features), expected, terms=shape[1])


def test_no_images_and_no_features_have_empty_means():
    assert mean_embedding(np.zeros((0, 3, 4), np.float32)).shape == (0, 4)
    assert mean_embedding(np.zeros((2, 3, 0), np.float32)).shape == (2, 0)


def test_linear_head_of_the_mean_is_the_mean_of_logits(rng):
    features = rng.normal(size=(9, 10, 64)).astype(np.float32)
    weights, bias = rng.normal(size=(64, 7)).astype(np.float32), rng.normal(size=7)
    of_mean = np.asarray(mean_embedding(features)) @ weights + bias
    of_views = (features.astype(np.float64) @ weights + bias).mean(1)
    np.testing.assert_allclose(of_mean, of_views, atol=1e-4)
    # A head that is not linear has another value.
    assert np.abs(np.tanh(of_mean) - np.tanh(features @ weights + bias).mean(1)).max() > 0.1


def test_norm_is_at_most_the_mean_norm(rng):
    features = rng.normal(size=(11, 6, 5)).astype(np.float32)
    norms = np.linalg.norm(np.asarray(mean_embedding(features)), axis=1)
    of_views = np.linalg.norm(features, axis=2).mean(1)
    assert (norms < 0.95 * of_views).all()
    equal = np.repeat(features[:, :1], 6, axis=1)
    np.testing.assert_allclose(
        np.linalg.norm(np.asarray(mean_embedding(equal)), axis=1),
        np.linalg.norm(features[:, 0], axis=1),
        rtol=1e-5,
    )


class SmallBackbone(nn.Module):
    """Two convolutions and a pool that is not symmetric under flips."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 3))(x))
        x = nn.relu(nn.Conv(8, (3, 3), strides=2)(x))
        return x.reshape(x.shape[0], -1)


def test_mean_over_flips_is_invariant_to_flips(key, rng):
    images = jnp.asarray(rng.normal(size=(5, 8, 7, 3)), jnp.float32)
    backbone = SmallBackbone()
    variables = backbone.init(key, images)

    @jax.jit
    def embed(images):
        views = [images, images[:, :, ::-1]]
        return mean_embedding(jnp.stack([backbone.apply(variables, v) for v in views], axis=1))

    mirrored = images[:, :, ::-1]
    difference = embed(images) - embed(mirrored)
    assert float(jnp.abs(difference).max()) < 1e-5
    plain = backbone.apply(variables, images) - backbone.apply(variables, mirrored)
    assert float(jnp.abs(plain).max()) > 0.05


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_narrow_features_are_summed_in_float32(dtype):
    # A sum of ones stops at 2,048 in float16 and at 256 in bfloat16.
    found = mean_embedding(jnp.ones((2, 5001, 3), dtype))
    assert found.dtype == jnp.float32
    close(found, np.ones((2, 3)), terms=5001)


def test_wide_features_keep_their_width():
    with jax.enable_x64(True):
        features = jnp.asarray([[[1.0], [1.0 + 1e-12]]], jnp.float64)
        found = mean_embedding(features)
        assert found.dtype == jnp.float64
        assert float(found[0, 0]) == pytest.approx(1 + 5e-13, abs=1e-15)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (), (1, 2, 3, 4), (2, 0, 3)])
def test_bad_features_are_one_line(shape, complains):
    complains(lambda: mean_embedding(np.zeros(shape)), "features", shape, "expected")
