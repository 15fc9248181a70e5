"""The bound, the ELBO and the importance-weighted estimate against priors of known density."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tolerances import close

from adaptive_nets.layers.kernel_vae import kernel_vae
from adaptive_nets.variational.deep_weight_prior import (
    Gaussian,
    SliceGaussian,
    kl_standard_normal,
    kl_upper_bound,
    log_density,
    negative_elbo,
    network_kl_upper_bound,
    slice_kl_upper_bound,
    to_slices,
)

pytestmark = pytest.mark.core

SIZE = (3, 2)
NOISE = 0.3


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LinearPrior:
    """w = A·z + b + σ·ε, whose slices are Gaussian with covariance AAᵀ + σ²I.

    With orthogonal columns of A the posterior of z is factorised, so `encode` is exact. `shift` and
    `widen` make it wrong.
    """

    matrix: Any
    offset: Any
    shift: float = 0.0
    widen: float = 1.0
    kernel_size: tuple[int, int] = dataclasses.field(default=SIZE, metadata={"static": True})

    @property
    def latent_size(self):
        return self.matrix.shape[1]

    def encode(self, slices):
        precision = 1 + jnp.sum(self.matrix**2, axis=0) / NOISE**2
        centred = slices.reshape(len(slices), -1) - self.offset[None]
        mean = centred @ self.matrix / NOISE**2 / precision[None]
        variance = jnp.broadcast_to((self.widen / precision)[None], mean.shape)
        return Gaussian(mean + self.shift, variance)

    def decode(self, latents):
        mean = latents @ self.matrix.T + self.offset[None]
        mean = mean.reshape(-1, *self.kernel_size)
        return Gaussian(mean, jnp.full_like(mean, NOISE**2))

    def exact(self):
        matrix = np.asarray(self.matrix, np.float64)
        covariance = matrix @ matrix.T + NOISE**2 * np.eye(len(matrix))
        return stats.multivariate_normal(np.asarray(self.offset), covariance)


def linear(rng, **options):
    orthogonal, _ = np.linalg.qr(rng.normal(size=(6, 2)))
    matrix = orthogonal * np.array([[0.8, 1.5]])
    return LinearPrior(jnp.asarray(matrix), jnp.asarray(rng.normal(size=6)), **options)


def independent(rng):
    """A prior whose slices do not depend on z; r(z|w) is then N(0, 1), as the prior of z."""
    return LinearPrior(jnp.zeros((6, 2)), jnp.asarray(rng.normal(size=6)))


def over_keys(function, key, count):
    """Stacks the results for many keys, of one program."""
    return np.asarray(jax.jit(jax.vmap(function))(jax.random.split(key, count)))


def jitted(function):
    return jax.jit(function, static_argnames="samples")


def posterior(rng, count):
    mean = jnp.asarray(rng.normal(size=(count, *SIZE)), jnp.float32)
    return mean, jnp.asarray(rng.uniform(-3, 0, size=mean.shape), jnp.float32)


def test_with_the_exact_encoder_every_estimate_is_log_p(key, rng):
    prior = linear(rng)
    slices = rng.normal(size=(5, *SIZE))
    expected = prior.exact().logpdf(slices.reshape(5, -1))
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), prior)
        # All importance weights are p(w): one draw is as good as many.
        for samples in (1, 7):
            found = jitted(log_density)(key, slices, wide, samples=samples)
            np.testing.assert_allclose(found, expected, rtol=1e-5)
    draws = -over_keys(lambda k: negative_elbo(k, slices, prior), key, 400)
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(abs(draws.mean(axis=0) - expected) < 5 * error)


def test_elbo_is_below_the_importance_weighted_estimate_which_approaches_log_p(key, rng):
    prior = linear(rng, shift=0.5, widen=2.0)
    slices = jnp.asarray(rng.normal(size=(20, *SIZE)), jnp.float32)
    exact = prior.exact().logpdf(np.asarray(slices).reshape(20, -1))
    elbo = -np.asarray(jitted(negative_elbo)(key, slices, prior, samples=500))
    few = np.asarray(jitted(log_density)(key, slices, prior, samples=3))
    many = np.asarray(jitted(log_density)(key, slices, prior, samples=20_000))
    assert np.all(elbo < exact - 0.1)
    assert elbo.mean() < few.mean() < exact.mean()
    np.testing.assert_allclose(many, exact, atol=0.1)


def test_gap_of_the_elbo_is_the_divergence_of_the_encoder(key, rng):
    shift, widen = 0.5, 2.0
    prior = linear(rng, shift=shift, widen=widen)
    slices = jnp.asarray(rng.normal(size=(4, *SIZE)), jnp.float32)
    precision = 1 + np.sum(np.asarray(prior.matrix) ** 2, axis=0) / NOISE**2
    gap = 0.5 * np.sum(widen + shift**2 * precision - 1 - np.log(widen))
    draws = over_keys(lambda k: negative_elbo(k, slices, prior), key, 800)
    exact = -prior.exact().logpdf(np.asarray(slices).reshape(4, -1))
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(abs(draws.mean(axis=0) - exact - gap) < 5 * error)


@pytest.mark.parametrize("options", [{}, {"shift": 0.3, "widen": 1.5}])
def test_bound_is_the_divergence_of_gaussians_plus_the_gap(key, rng, options):
    prior = linear(rng, **options)
    mean, log_variance = posterior(rng, 3)
    cholesky = jnp.asarray(np.linalg.cholesky(prior.exact().cov), jnp.float32)
    exact = SliceGaussian(prior.offset.reshape(SIZE), cholesky).kl_divergence(mean, log_variance)
    if options:
        precision = 1 + np.sum(np.asarray(prior.matrix) ** 2, axis=0) / NOISE**2
        exact = exact + 0.5 * np.sum(1.5 + 0.3**2 * precision - 1 - np.log(1.5))
    draws = over_keys(
        lambda k: slice_kl_upper_bound(k, mean, log_variance, prior, samples=4), key, 300
    )
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(abs(draws.mean(axis=0) - np.asarray(exact)) < 5 * error)


def test_without_latent_variables_the_bound_is_the_divergence_from_a_gaussian(key, rng):
    prior = independent(rng)
    mean, log_variance = posterior(rng, 3)
    offset = prior.offset.reshape(1, *SIZE)
    # KL(N(m, s²) || N(b, σ²)) is that of the standardised variables from N(0, 1).
    exact = kl_standard_normal((mean - offset) / NOISE, log_variance - 2 * np.log(NOISE))
    exact = np.sum(exact, axis=(1, 2))
    draws = jitted(slice_kl_upper_bound)(key, mean, log_variance, prior, samples=20_000)
    np.testing.assert_allclose(draws, exact, rtol=0.02)
    # A point posterior has no noise but its entropy.
    point = jnp.full_like(mean, -40.0)
    found = slice_kl_upper_bound(key, mean, point, prior)
    close(
        found,
        np.sum(kl_standard_normal((mean - offset) / NOISE, point - 2 * np.log(NOISE)), axis=(1, 2)),
        terms=6,
    )


def test_bound_of_a_network_is_above_the_importance_weighted_estimate(key, rng):
    prior = kernel_vae(key, (3, 3), hidden=4, latent=2)
    slices = jnp.asarray(0.1 * rng.normal(size=(64, 3, 3)), jnp.float32)
    bound = jax.jit(lambda: negative_elbo(key, slices, prior, samples=50))()
    estimate = -jax.jit(lambda: log_density(key, slices, prior, samples=200))()
    assert np.all(bound > estimate)


def test_layer_is_the_sum_over_slices_in_both_layouts(key, rng):
    prior = kernel_vae(key, (3, 3), hidden=4, latent=2)
    mean = 0.1 * rng.normal(size=(5, 2, 3, 3)).astype(np.float32)
    log_variance = np.full_like(mean, -6.0)
    found = kl_upper_bound(key, mean, log_variance, prior)
    flat = [array.reshape(10, 3, 3) for array in (mean, log_variance)]
    slices = slice_kl_upper_bound(key, *flat, prior)
    assert slices.shape == (10,)
    close(found, np.sum(slices), terms=10)
    swapped = [jnp.asarray(array).transpose(2, 3, 1, 0) for array in (mean, log_variance)]
    assert float(kl_upper_bound(key, *swapped, prior, layout="HWIO")) == float(found)
    np.testing.assert_array_equal(to_slices(swapped[0]), mean.reshape(10, 3, 3))
    close(jitted(kl_upper_bound)(key, mean, log_variance, prior), found, terms=100)


def test_a_subset_of_slices_is_unbiased(key, rng):
    prior = linear(rng)
    mean, log_variance = (array.reshape(5, 2, *SIZE) for array in posterior(rng, 10))
    every = over_keys(lambda k: kl_upper_bound(k, mean, log_variance, prior), key, 4000)
    part = over_keys(lambda k: kl_upper_bound(k, mean, log_variance, prior, subset=4), key, 4000)
    error = np.sqrt((every.var() + part.var()) / 4000)
    assert part.std() > every.std()
    assert abs(part.mean() - every.mean()) < 5 * error
    whole = kl_upper_bound(key, mean, log_variance, prior, subset=10)
    assert float(whole) == float(kl_upper_bound(key, mean, log_variance, prior))


def test_layers_add_up_independently_of_their_order(key, rng):
    priors = [dataclasses.replace(linear(rng), kernel_size=(2, 3)), linear(rng)]
    means = {
        "conv1": jnp.asarray(rng.normal(size=(2, 3, 1, 2)), jnp.float32),
        "block/conv": jnp.asarray(rng.normal(size=(*SIZE, 2, 2)), jnp.float32),
    }
    log_variances = {name: jnp.full_like(mean, -5.0) for name, mean in means.items()}
    total = network_kl_upper_bound(key, means, log_variances, priors, samples=2)
    parts = [
        network_kl_upper_bound(key, {n: means[n]}, {n: log_variances[n]}, priors, samples=2)
        for n in reversed(means)
    ]
    close(total, sum(parts), terms=2)
    assert float(network_kl_upper_bound(key, {}, {}, priors)) == 0.0


def test_gradients_of_mean_and_log_variance_against_finite_differences(key, rng):
    with jax.enable_x64(True):
        prior = kernel_vae(key, (3, 3), hidden=3, latent=2)
        prior = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), prior)
        mean = jnp.asarray(0.2 * rng.normal(size=(2, 3, 3)))
        log_variance = jnp.asarray(rng.uniform(-4, -1, size=(2, 3, 3)))

        @jax.jit
        def total_and_gradients(mean, log_variance):
            def total(mean, log_variance):
                return jnp.sum(slice_kl_upper_bound(key, mean, log_variance, prior, samples=2))

            return jax.value_and_grad(total, argnums=(0, 1))(mean, log_variance)

        _, gradients = total_and_gradients(mean, log_variance)
        for argument in (0, 1):
            direction = jnp.asarray(rng.normal(size=mean.shape))
            step = 1e-5
            moved = []
            for sign in (1, -1):
                arguments = [mean, log_variance]
                arguments[argument] = arguments[argument] + sign * step * direction
                moved.append(float(total_and_gradients(*arguments)[0]))
            numeric = (moved[0] - moved[1]) / (2 * step)
            exact = float(jnp.sum(gradients[argument] * direction))
            assert exact == pytest.approx(numeric, rel=1e-5)


def test_gradient_reaches_the_prior_unless_it_is_stopped(key, rng):
    prior = linear(rng)
    mean = jnp.full((1, 2, *SIZE), 0.1)

    def bound(prior):
        return kl_upper_bound(key, mean, mean - 5, prior)

    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(jax.jit(jax.grad(bound))(prior)))
    stopped = jax.jit(jax.grad(lambda p: bound(jax.lax.stop_gradient(p))))(prior)
    assert not any(np.any(leaf != 0) for leaf in jax.tree.leaves(stopped))


def test_no_slices_have_no_divergence(key):
    prior = kernel_vae(key, (3, 3), hidden=3, latent=2)
    empty = jnp.zeros((0, 3, 3))
    assert negative_elbo(key, empty, prior).shape == (0,)
    assert log_density(key, empty, prior, samples=3).shape == (0,)
    assert float(kl_upper_bound(key, jnp.zeros((4, 0, 3, 3)), jnp.zeros((4, 0, 3, 3)), prior)) == 0


def test_half_precision_is_widened(key, rng):
    mean, prior = jnp.full((2, 2, *SIZE), 0.1, jnp.bfloat16), linear(rng)
    assert kl_upper_bound(key, mean, mean - 5, prior).dtype == jnp.float32


def test_wrong_arguments_answer_in_one_line(key, rng, complains):
    prior = linear(rng)
    mean = jnp.zeros((4, 2, *SIZE))
    complains(
        lambda: kl_upper_bound(key, jnp.zeros((5, 5, 1, 4)), jnp.zeros((5, 5, 1, 4)), prior),
        "mean has 1x4 slices; expected 3x2",
        "layout='HWIO'",
    )
    complains(lambda: kl_upper_bound(key, mean, mean[:1], prior), "log_variance has shape")
    complains(lambda: kl_upper_bound(key, mean[0], mean[0], prior), "mean has shape (2, 3, 2)")
    complains(lambda: kl_upper_bound(key, "a", mean, prior), "mean is 'a'")
    complains(lambda: kl_upper_bound(key, mean, mean - 200, prior), "variance underflows", "-200")
    complains(lambda: kl_upper_bound(key, mean, mean + 200, prior), "not finite")
    complains(lambda: kl_upper_bound(key, mean, mean, prior, samples=0), "samples is 0")
    complains(lambda: kl_upper_bound(key, mean, mean, prior, subset=0), "subset is 0")
    complains(lambda: kl_upper_bound(key, mean, mean, prior, layout="NHWC"), "layout is 'NHWC'")
    complains(lambda: negative_elbo(key, jnp.zeros((2, 5, 5)), prior), "slices has 5x5")
    other = {"conv1": jnp.zeros((5, 5, 1, 1))}
    complains(lambda: network_kl_upper_bound(key, other, other, [prior]), "conv1", "3x2")
    complains(lambda: network_kl_upper_bound(key, other, {}, [prior]), "differ in conv1")
