"""Networks of the prior, their training on synthetic slices, and their files."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tolerances import close

from adaptive_nets.layers.kernel_vae import ARCHITECTURES, kernel_vae
from adaptive_nets.models.weights.kernel_priors import FORMAT, load_prior, save_prior
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.variational.deep_weight_prior import (
    Gaussian,
    fit_gaussian,
    kl_upper_bound,
    log_density,
    mean_elbo,
    negative_elbo,
    sample_slices,
    train_prior,
)

# Kernels and biases by the architectures of [atanov2019]: c(k, i, o) = k²·i·o + o.
REFERENCE_SIZES = {(7, 7): (32, 2), (5, 5): (64, 4), (3, 3): (16, 8), (16, 16): (32, 2)}


def reference_count(size):
    h, d = REFERENCE_SIZES[size]

    def c(kernel, inputs, outputs):
        return kernel**2 * inputs * outputs + outputs

    two = 2 * h
    encoder = {
        (7, 7): c(3, 1, h) + c(3, h, two) + c(3, two, two),
        (5, 5): c(3, 1, h) + c(3, h, h) + c(3, h, two) + c(3, two, two),
        (3, 3): c(3, 1, h) + c(3, h, h) + c(3, h, two),
        (16, 16): c(3, 1, h) + c(3, h, two) + 2 * c(3, two, two),
    }[size]
    decoder = {
        (7, 7): c(3, d, two) + c(3, two, two) + c(3, two, h),
        (5, 5): c(1, d, two) + 2 * c(3, two, two) + c(1, two, h),
        (3, 3): c(1, d, two) + c(3, two, h) + c(1, h, h),
        (16, 16): c(1, d, two) + 2 * c(4, two, two) + c(4, two, h),
    }[size]
    heads = 2 * c(1, two, d) + (1 if size == (3, 3) else 2) * c(1, h, 1)
    return encoder + decoder + heads


def waves(rng, count, size=7):
    """Sine waves of random direction: correlated slices that no Gaussian describes well."""
    axis = np.linspace(-1, 1, size)
    angle = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    phase = np.cos(angle) * axis[None, :, None] + np.sin(angle) * axis[None, None, :]
    return (0.3 * np.sin(2.5 * phase) + 0.03 * rng.normal(size=phase.shape)).astype(np.float32)


@pytest.mark.parametrize("size", ARCHITECTURES)
def test_architectures_have_the_shapes_and_parameters_of_the_paper(key, size):
    shapes = jax.eval_shape(lambda: kernel_vae(key, size))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == reference_count(size)
    latents = jax.eval_shape(lambda p: p.encode(jnp.zeros((3, *size))), shapes)
    assert latents.mean.shape == latents.variance.shape == (3, shapes.latent_size)
    slices = jax.eval_shape(lambda p: p.decode(jnp.zeros((3, p.latent_size))), shapes)
    assert slices.mean.shape == slices.variance.shape == (3, *size)
    assert (shapes.hidden, shapes.latent_size) == REFERENCE_SIZES[size]


def test_decoder_is_one_of_transposed_convolutions(key):
    """It computes those of stride 1 as convolutions with full padding."""
    prior = kernel_vae(key, (7, 7), hidden=3)
    params = prior.params["decoder"]
    latents = jax.random.normal(key, (5, 2))
    x = latents[:, None, None, :]
    for name, features in (("conv1", 6), ("conv2", 6), ("conv3", 3)):
        layer = nn.ConvTranspose(features, (3, 3), padding="VALID")
        x = nn.elu(layer.apply({"params": params[name]}, x))
    mean = x @ params["mean"]["kernel"][0, 0] + params["mean"]["bias"].reshape(1, 1, 1, 1)
    close(prior.decode(latents).mean, mean[..., 0], terms=54)


@pytest.mark.parametrize("size", [(5, 5), pytest.param((16, 16), marks=pytest.mark.slow)])
def test_every_parameter_gets_a_gradient(key, size):
    prior = kernel_vae(key, size, hidden=2, latent=2)
    slices = jax.random.normal(key, (4, *size))
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(negative_elbo(key, slices, p))))(prior)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf != 0), path


def test_variances_of_untrained_and_extreme_networks_are_at_least_the_floor(key):
    prior = kernel_vae(key, (5, 5), hidden=2, latent=2, floor=1e-3)
    low = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf - 1e4 if "variance" in str(path) else leaf, prior
    )
    slices = jax.random.normal(key, (3, 5, 5))
    encoded = low.encode(slices)
    np.testing.assert_allclose(encoded.variance, 1e-3)
    np.testing.assert_allclose(low.decode(encoded.mean).variance, 1e-3)
    assert np.all(np.isfinite(negative_elbo(key, slices, low)))
    fixed = kernel_vae(key, (3, 3), hidden=2)
    np.testing.assert_allclose(fixed.decode(jnp.zeros((2, 8))).variance, 1e-3)


class Recorder(SilentProgress):
    def __init__(self):
        self.calls = []

    def start(self, title, *, done, total, unit="steps"):
        self.calls.append(total)

    def update(self, done, values=None):
        self.calls.append(done)

    def finish(self):
        self.calls.append("finished")


@pytest.mark.slow
def test_training_raises_the_elbo_and_keeps_the_bound_above_the_estimate(key, rng):
    train, held_out = waves(rng, 150), waves(rng, 40)
    start = kernel_vae(key, (7, 7), hidden=4)
    recorder = Recorder()
    trained = train_prior(
        start,
        train,
        held_out=held_out,
        epochs=20,
        batch_size=30,
        learning_rate=1e-2,
        evaluate_every=15,
        progress=recorder,
    )
    history = trained.history
    assert len(history.elbo) == 20
    assert history.held_out_epochs == (15, 20)
    assert recorder.calls == [100, *range(1, 101), "finished"]
    untrained = float(mean_elbo(key, held_out, start))
    found = float(mean_elbo(key, held_out, trained.prior))
    assert found > untrained + 20
    assert history.held_out_elbo[-1] == pytest.approx(found, abs=3)
    assert history.elbo[-1] > history.elbo[0] + 20
    assert np.all(np.isfinite(sample_slices(key, trained.prior, 5)))
    bound = jax.jit(lambda: negative_elbo(key, held_out, trained.prior, samples=20))()
    estimate = -jax.jit(lambda: log_density(key, held_out, trained.prior, samples=100))()
    assert np.mean(bound) > np.mean(estimate)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TiedPrior:
    """A linear prior of one matrix, quick to compile."""

    matrix: Any
    kernel_size: tuple[int, int] = dataclasses.field(default=(3, 3), metadata={"static": True})
    latent_size: int = dataclasses.field(default=2, metadata={"static": True})

    def encode(self, slices):
        mean = slices.reshape(len(slices), 9) @ self.matrix
        return Gaussian(mean, jnp.full_like(mean, 0.5))

    def decode(self, latents):
        mean = (latents @ self.matrix.T).reshape(-1, 3, 3)
        return Gaussian(mean, jnp.full_like(mean, 0.1))


def test_training_depends_on_its_seed_alone(key, rng):
    slices = waves(rng, 9, size=3)
    start = TiedPrior(0.1 * jax.random.normal(key, (9, 2)))

    def train(seed):
        return train_prior(start, slices, epochs=2, batch_size=4, seed=seed)

    first, second, other = train(1), train(1), train(2)
    assert first.history == second.history
    jax.tree.map(np.testing.assert_array_equal, first.prior, second.prior)
    assert first.history.elbo != other.history.elbo
    assert first.history.held_out_elbo == ()
    # Fewer slices than the batch are one batch.
    assert len(train_prior(start, slices[:1], epochs=1).history.elbo) == 1


def test_wrong_training_answers_in_one_line(key, rng, complains):
    prior, slices = kernel_vae(key, (7, 7), hidden=2), waves(rng, 8)
    complains(lambda: train_prior(prior, waves(rng, 8, 5)), "slices has 5x5", "7x7")
    complains(lambda: train_prior(prior, slices[:0]), "slices are empty")
    complains(lambda: train_prior(prior, slices * np.nan), "slices hold numbers")
    complains(lambda: train_prior(prior, slices, held_out=slices[:0]), "held_out are empty")
    complains(lambda: train_prior(prior, slices, epochs=0), "epochs is 0")
    complains(lambda: train_prior(prior, slices, learning_rate=-1.0), "learning_rate is -1.0")
    complains(
        lambda: train_prior(TiedPrior(jnp.ones((9, 2))), waves(rng, 8, 3) * 1e30, epochs=1),
        "ELBO is",
        "a variance underflows",
    )
    complains(lambda: kernel_vae(key, (4, 4)), "kernel_size is 4x4", "7x7, 5x5, 3x3, 16x16")
    complains(lambda: kernel_vae(key, 7), "kernel_size is 7;")
    complains(lambda: kernel_vae(key, (7, 7), hidden=0), "hidden is 0")
    complains(lambda: kernel_vae(key, (7, 7), floor=1e-30), "floor is 1e-30", "underflows")


@pytest.fixture(scope="module")
def small_prior():
    return kernel_vae(jax.random.key(5), (3, 3), hidden=3, latent=2, floor=1e-5)


def test_a_saved_prior_is_read_back(tmp_path, key, small_prior):
    path = tmp_path / "priors" / "three.safetensors"
    size = save_prior(path, small_prior, note={"sources": 100, "elbo": -1.5})
    assert path.stat().st_size == size
    stored = load_prior(path, kernel_size=(3, 3))
    assert stored.note == {"sources": 100, "elbo": -1.5}
    assert stored.prior.floor == 1e-5
    assert len(stored.digest) == 64
    assert (stored.prior.encoder, stored.prior.decoder) == (
        small_prior.encoder,
        small_prior.decoder,
    )
    jax.tree.map(np.testing.assert_array_equal, stored.prior, small_prior)
    mean = jnp.zeros((2, 2, 3, 3))
    found = kl_upper_bound(key, mean, mean - 5, stored.prior)
    assert float(found) == float(kl_upper_bound(key, mean, mean - 5, small_prior))


def rewritten(path, change_header=None, change_tensors=None):
    """Rewrites a file with another header or other tensors, the digest as it was."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = json.loads(file.metadata()[FORMAT])
    tensors = load_file(path)
    header |= change_header or {}
    tensors |= change_tensors or {}
    save_file(tensors, path, metadata={FORMAT: json.dumps(header)})


def test_wrong_files_answer_in_one_line(tmp_path, small_prior, complains):
    path = tmp_path / "prior.safetensors"
    complains(lambda: load_prior(path), path, "does not exist")
    path.write_bytes(b"no prior")
    complains(lambda: load_prior(path), path, "cannot be read as safetensors")
    save_file({"a": np.zeros(3, np.float32)}, path)
    complains(lambda: load_prior(path), path, "is no prior")
    complains(lambda: load_prior(tmp_path), tmp_path, "cannot be read")

    save_prior(path, small_prior)
    complains(lambda: load_prior(path, kernel_size=(7, 7)), "a prior of 3x3 slices; expected 7x7")
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    complains(lambda: load_prior(path), path, "cannot be read as safetensors")
    path.write_bytes(whole[:-8] + bytes(8))
    complains(lambda: load_prior(path), path, "digest")
    for header, text in (
        ({"version": 2}, "has version 2; expected 1"),
        ({"floor": 1e-3}, "digest"),
        ({"kernel_size": [5, 5]}, "digest"),
    ):
        path.write_bytes(whole)
        rewritten(path, header)
        complains(lambda: load_prior(path), path, text)
    path.write_bytes(whole)
    name = next(iter(load_file(path)))
    rewritten(path, change_tensors={name: np.full(load_file(path)[name].shape, np.nan, np.float32)})
    complains(lambda: load_prior(path), path, f"{name} has nan")
    broken = jax.tree.map(lambda leaf: leaf * np.inf, small_prior)
    complains(lambda: save_prior(tmp_path / "other", broken), "is not saved")
    assert not (tmp_path / "other").exists()


def test_a_header_with_a_valid_digest_is_checked_too(tmp_path, small_prior, complains):
    from safetensors import safe_open

    from adaptive_nets.models.weights.header import digest

    path = tmp_path / "prior.safetensors"
    for change, text in (
        ({"hidden": 10**9}, "hidden is 1000000000"),
        ({"kernel_size": "3x3"}, "kernel_size is 3x3"),
        ({"kernel_size": [4, 4]}, "kernel_size is 4x4"),
        ({"floor": 0}, "floor is 0"),
        ({"note": None}, "lacks the note"),
        ({"latent": 5}, "does not fit the network"),
    ):
        save_prior(path, small_prior)
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()[FORMAT]) | change
        header.pop("digest")
        rewritten(path, change | {"digest": digest(load_file(path), header)})
        complains(lambda: load_prior(path), path, text)


@pytest.mark.slow
def test_held_out_elbo_is_above_the_full_covariance_gaussian(key, rng):
    """Slices whose norms vary, as do those of trained networks [atanov2019]."""

    def slices(count):
        noisy = waves(rng, count) + 0.15 * rng.normal(size=(count, 7, 7))
        return noisy * np.exp(rng.uniform(-2.5, 0.5, (count, 1, 1)))

    train, held_out = slices(1500), slices(300)
    gaussian = float(fit_gaussian(train).log_density(held_out).mean())
    trained = train_prior(
        kernel_vae(key, (7, 7), hidden=8),
        train,
        held_out=held_out,
        epochs=40,
        batch_size=100,
        learning_rate=5e-3,
    )
    elbo = trained.history.held_out_elbo[-1]
    print(f"held-out ELBO {elbo:.2f}, Gaussian {gaussian:.2f} nats")
    assert elbo > gaussian + 5
    bound = jax.jit(lambda: negative_elbo(key, held_out, trained.prior, samples=50))()
    estimate = -jax.jit(lambda: log_density(key, held_out, trained.prior, samples=500))()
    assert np.mean(bound) > np.mean(estimate)
