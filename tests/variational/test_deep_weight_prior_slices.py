"""Collection of source slices, sampling, and initialisation of convolutions."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets.layers.kernel_vae import kernel_vae
from adaptive_nets.models import create_model
from adaptive_nets.variational.deep_weight_prior import (
    Gaussian,
    collect_slices,
    from_slices,
    init_convolutions,
    initial_kernel,
    prior_initializer,
    sample_slices,
    slices_initializer,
    to_slices,
)

pytestmark = pytest.mark.core


@dataclasses.dataclass(frozen=True)
class RampPrior:
    """Slices z·ramp + 0.5·ε: mean 0, covariance ramp·rampᵀ + 0.25·I."""

    kernel_size: tuple[int, int] = (2, 3)
    latent_size: int = 1

    @property
    def ramp(self):
        height, width = self.kernel_size
        return jnp.arange(1.0, height * width + 1).reshape(1, height, width)

    def encode(self, slices):
        raise NotImplementedError

    def decode(self, latents):
        mean = latents[:, :, None] * self.ramp
        return Gaussian(mean, jnp.full_like(mean, 0.25))


def tree(scale, *, size=3, outputs=4):
    """A network of one convolution whose output channel o has the weights scale·o."""
    kernel = np.ones((size, size, 2, outputs)) * np.arange(outputs) * scale
    return {"conv1": {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}}


def test_slices_are_those_of_pairs_of_channels(rng):
    kernel = rng.normal(size=(3, 5, 2, 4)).astype(np.float32)
    slices = to_slices(kernel)
    assert slices.shape == (8, 3, 5)
    for output in range(4):
        for channel in range(2):
            np.testing.assert_array_equal(
                slices[output * 2 + channel], kernel[:, :, channel, output]
            )
    np.testing.assert_array_equal(from_slices(slices, kernel.shape), kernel)
    np.testing.assert_array_equal(to_slices(kernel.transpose(3, 2, 0, 1), "OIHW"), slices)
    assert to_slices(np.zeros((3, 3, 0, 4))).shape == (0, 3, 3)


def test_small_slices_are_dropped_by_their_norm():
    # Norms 0, 3, 6, 9 of output channels 0 to 3, two input channels each.
    found = collect_slices([tree(1.0)], (3, 3), least_norm=6.0)
    assert found.found == 8
    np.testing.assert_array_equal(np.linalg.norm(found.slices, axis=(1, 2)), [6, 6, 9, 9])
    assert found.share_kept == 0.5
    # Zero slices are dropped by any rule.
    assert len(collect_slices([tree(1.0)], (3, 3)).slices) == 6
    relative = collect_slices([tree(1.0), tree(10.0)], (3, 3), relative=0.5)
    assert relative.least_norm == 45
    assert len(relative.slices) == 4
    # Squares of such weights are zero in float32.
    assert len(collect_slices([tree(1e-30)], (3, 3)).slices) == 6


def test_networks_trained_at_once_give_the_slices_of_the_single_ones(rng):
    trees = [jax.tree.map(lambda leaf: leaf + rng.normal(), tree(1.0)) for _ in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
    single = collect_slices(trees, (3, 3))
    at_once = collect_slices([stacked], (3, 3), stacked=True)
    np.testing.assert_array_equal(single.slices, at_once.slices)
    assert collect_slices([{}], (3, 3), stacked=True, at_least=0).found == 0


def test_only_convolutions_of_the_size_and_the_layers_are_collected():
    params = {
        "conv1": tree(1.0)["conv1"],
        "block": {"conv2": tree(2.0)["conv1"], "conv3": tree(1.0, size=5)["conv1"]},
        "fc": {"kernel": np.ones((3, 3), np.float32)},
    }
    assert collect_slices([params], (3, 3)).found == 16
    assert collect_slices([params], (3, 3), layers="block/*").found == 8
    assert collect_slices([params], (5, 5)).slices.shape == (6, 5, 5)
    assert collect_slices([], (5, 5), at_least=0).slices.shape == (0, 5, 5)


def test_split_is_a_partition_that_depends_on_the_seed():
    source = collect_slices([tree(0.1, outputs=51)], (3, 3))
    train, held_out = source.split(0.2, seed=1)
    assert (len(train), len(held_out)) == (80, 20)
    together = np.sort(np.concatenate([train, held_out])[:, 0, 0])
    np.testing.assert_array_equal(together, np.sort(source.slices[:, 0, 0]))
    assert not np.array_equal(train, source.split(0.2, seed=2)[0])
    assert len(source.split(0.0)[1]) == 0


def test_wrong_sources_answer_in_one_line(complains):
    complains(
        lambda: collect_slices([tree(1.0)], (3, 3), at_least=7),
        "6 of 8 source slices of size 3x3",
        "expected 7",
    )
    complains(lambda: collect_slices([tree(1.0)], (7, 7)), "0 of 0", "7x7")
    complains(lambda: collect_slices([tree(np.nan)], (3, 3)), "kernel of conv1 is not finite")
    complains(lambda: collect_slices([tree(1.0)], (3, 3), least_norm=-1), "least_norm is -1")
    complains(lambda: collect_slices([tree(1.0)], (3, 3), relative=1.5), "relative is 1.5")
    complains(lambda: collect_slices([tree(1.0)], (3, 3), stacked=True), "first axes")
    complains(lambda: collect_slices([tree(1.0)], (3, 3)).split(1.0), "held_out is 1.0")
    complains(lambda: to_slices(np.zeros((3, 3))), "kernel has shape (3, 3)")
    complains(lambda: from_slices(np.zeros((5, 3, 3)), (3, 3, 2, 2)), "slices have shape (5, 3, 3)")


def test_samples_have_the_moments_of_the_prior(key):
    prior = RampPrior()
    ramp = np.ravel(prior.ramp)
    for draw, noise in (("sample", 0.25), ("mean", 0.0)):
        samples = np.asarray(sample_slices(key, prior, 20_000, draw=draw)).reshape(-1, 6)
        covariance = np.outer(ramp, ramp) + noise * np.eye(6)
        np.testing.assert_allclose(np.cov(samples.T), covariance, rtol=0.05)
        assert np.all(abs(samples.mean(axis=0)) < 5 * np.sqrt(np.diag(covariance) / 20_000))
    assert sample_slices(key, prior, 0).shape == (0, 2, 3)


def test_slices_of_an_initial_kernel_are_independent(key):
    kernel = initial_kernel(key, (2, 3, 4, 50), RampPrior(), dtype=jnp.bfloat16)
    assert kernel.shape == (2, 3, 4, 50)
    assert kernel.dtype == jnp.bfloat16
    latents = np.asarray(kernel[0, 0], np.float32)
    assert len(np.unique(latents)) > 150
    assert abs(np.corrcoef(latents)[0, 1]) < 0.5
    # Without the decoder's noise a slice is a multiple of the ramp.
    kernel = initial_kernel(key, (2, 3, 4, 50), RampPrior())
    np.testing.assert_allclose(kernel[1, 2], 6 * kernel[0, 0], rtol=1e-5)


def test_a_linen_convolution_takes_the_initialiser(key):
    layer = nn.Conv(6, (3, 3), kernel_init=prior_initializer(kernel_vae(key, (3, 3))))
    kernel = layer.init(key, jnp.zeros((1, 8, 8, 2)))["params"]["kernel"]
    assert kernel.shape == (3, 3, 2, 6)
    assert np.std(kernel) > 0


def test_source_slices_are_drawn_without_replacement(key, complains):
    slices = np.arange(12.0)[:, None, None] * np.ones((12, 2, 2))
    init = slices_initializer(slices)
    kernel = init(key, (2, 2, 3, 4))
    assert sorted(np.ravel(kernel[0, 0])) == list(range(12))
    complains(lambda: init(key, (2, 2, 3, 5)), "12 source slices", "at least 15")
    complains(lambda: init(key, (3, 3, 1, 1)), "3x3", "2x2")


def test_matching_convolutions_of_a_network_are_initialised(key):
    model = create_model("lenet5_caffe")
    params = model.init(key, jnp.zeros((1, 28, 28, 1)))["params"]
    init = prior_initializer(RampPrior((5, 5)))
    new = init_convolutions(key, params, {(5, 5): init})
    assert jax.tree.structure(new) == jax.tree.structure(params)
    changed = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(new)
        if not np.array_equal(leaf, dict(jax.tree_util.tree_leaves_with_path(params))[path])
    }
    assert changed == {"['conv1']['kernel']", "['conv2']['kernel']"}
    for layer in ("conv1", "conv2"):
        kernel = new[layer]["kernel"]
        np.testing.assert_allclose(kernel[4, 4], 25 * kernel[0, 0], rtol=1e-5)
    first = init_convolutions(key, params, {(5, 5): init}, layers="conv1")
    np.testing.assert_array_equal(first["conv1"]["kernel"], new["conv1"]["kernel"])
    np.testing.assert_array_equal(first["conv2"]["kernel"], params["conv2"]["kernel"])


def test_wrong_initialisations_answer_in_one_line(key, complains):
    prior = RampPrior()
    complains(lambda: initial_kernel(key, (3, 3, 1, 1), prior), "3x3 slices; expected 2x3")
    complains(lambda: initial_kernel(key, (2, 3, 1), prior), "shape is (2, 3, 1)")
    complains(lambda: sample_slices(key, prior, -1), "count is -1")
    complains(lambda: sample_slices(key, prior, 2, draw="mode"), "draw is 'mode'")
    complains(
        lambda: init_convolutions(key, tree(1.0), {(7, 7): prior_initializer(prior)}),
        "no convolution of '*' has a kernel of size 7x7",
        "are 3x3",
    )
