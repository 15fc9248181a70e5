"""Deep weight prior: penalties, labels, files of priors, time of sources, tables and bad input."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets import load_run
from adaptive_nets.data import load
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.layers.bayesian_convolutions import BayesianConvolutions
from adaptive_nets.layers.kernel_vae import kernel_vae
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational.deep_weight_prior import sample_slices
from experiments.papers.dwp import figures, image_vae, measures, tables
from experiments.papers.dwp.configs import EXPERIMENTS, few_shot
from experiments.papers.dwp.experiments.few_shot import penalty_of, with_few_labels
from experiments.papers.dwp.experiments.kernels import FrozenConvolutions
from experiments.papers.dwp.fields import PriorConfig, SourcedPriorConfig, VAEConfig
from experiments.papers.dwp.networks import kernel_sizes, start_from
from experiments.papers.dwp.prior_files import SizePrior, read_size, resolve_priors, write_size
from experiments.suite.records import PUBLISHED, collect, read_record
from experiments.suite.registry import find_experiment

SIZE: tuple[int, int] = (5, 5)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits", source="embedded")


@pytest.fixture(scope="module")
def prior() -> SizePrior:
    vae = kernel_vae(jax.random.key(0), SIZE, hidden=2)
    slices = np.asarray(sample_slices(jax.random.key(1), vae, 60))
    return SizePrior(vae, slices[:40], slices[40:])


def test_labels_are_stratified_and_differ_between_seeds(digits):
    first, again, other = (with_few_labels(digits, 50, seed=seed) for seed in (0, 0, 1))
    assert first.train is not None
    assert again.train is not None
    assert other.train is not None
    np.testing.assert_array_equal(np.bincount(first.train.labels), [5] * 10)
    np.testing.assert_array_equal(first.train.images, again.train.images)
    assert not np.array_equal(first.train.images, other.train.images)
    assert with_few_labels(digits, 0, seed=0) is digits
    assert first.test is digits.test


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (55, "--labels.count is 55; expected a multiple of 10, the number of classes of digits"),
        (5000, "--labels.count is 5000; expected at most 1,3"),
    ],
)
def test_impossible_numbers_of_labels_are_named(digits, count, message):
    with pytest.raises(UserError, match=re.escape(message)):
        with_few_labels(digits, count, seed=0)


def test_a_rare_class_bounds_the_labels(digits):
    train = Split(np.zeros((5, 8, 8, 1), np.uint8), np.array([0, 0, 0, 1, 1], np.int32))
    two = dataclasses.replace(digits, num_classes=2, train=train)
    chosen = with_few_labels(two, 4, seed=3).train
    assert chosen is not None
    np.testing.assert_array_equal(np.bincount(chosen.labels), [2, 2])
    with pytest.raises(UserError, match="a class of digits has 2 training images"):
        with_few_labels(two, 6, seed=3)


@pytest.fixture(scope="module")
def network() -> BayesianConvolutions:
    return BayesianConvolutions(create_model("fconv_mnist", widths=(1, 2)), start=-3.0)


@pytest.fixture(scope="module")
def params(network):
    return network.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]


def test_the_divergence_from_a_standard_normal(network, params):
    config = PriorConfig(kind="standard-normal")
    found = penalty_of(config, network, {})(params, jax.random.key(0))
    expected = sum(
        0.5 * np.sum(np.asarray(variance + mean**2 - 1 - jnp.log(variance), np.float64))
        for mean, variance in network.moments(params).values()
    )
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_log_uniform_divergence_falls_with_the_rate(params):
    network = BayesianConvolutions(create_model("fconv_mnist", widths=(1, 2)), spread="rate_logit")
    penalty = penalty_of(PriorConfig(kind="log-uniform"), network, {})
    values = [
        float(penalty({**params, "spread": spreads}, jax.random.key(0)))
        for shift in (-4.0, -2.0, 0.0)
        for spreads in [jax.tree.map(lambda a, s=shift: jnp.full_like(a, s), params["spread"])]
    ]
    assert values == sorted(values, reverse=True)


def test_the_gaussian_of_white_slices_is_nearly_the_standard_normal(network, params):
    rng = np.random.default_rng(0)
    priors = {
        (size, size): SizePrior(
            kernel_vae(jax.random.key(0), (size, size), hidden=1),
            rng.normal(size=(20_000, size, size)).astype(np.float32),
            np.zeros((0, size, size), np.float32),
        )
        for size in (7, 5)
    }
    config = SourcedPriorConfig(kind="gaussian", source="random")
    found = penalty_of(config, network, priors)(params, jax.random.key(0))
    normal = penalty_of(PriorConfig(kind="standard-normal"), network, {})
    assert float(found) == pytest.approx(float(normal(params, jax.random.key(0))), rel=0.02)


def test_the_bound_of_a_subset_is_unbiased(network, params, prior):
    only = BayesianConvolutions(network.module, start=-3.0, layers="conv2")
    own = {"mean": params["mean"], "spread": {"conv2": params["spread"]["conv2"]}}
    priors = {SIZE: prior}
    whole, part = (
        penalty_of(SourcedPriorConfig(source="random", subset=subset), only, priors)
        for subset in (0, 1)
    )
    keys = jax.random.split(jax.random.key(5), 400)
    many = jax.jit(jax.vmap(whole, in_axes=(None, 0)))(own, keys)
    few = jax.jit(jax.vmap(part, in_axes=(None, 0)))(own, keys)
    error = float(np.hypot(np.std(many), np.std(few)) / np.sqrt(len(keys)))
    assert float(np.mean(few)) == pytest.approx(float(np.mean(many)), abs=4 * error)
    assert np.std(few) > np.std(many)


def test_priors_are_read_back(tmp_path, prior):
    assert read_size(tmp_path, SIZE) is None
    write_size(tmp_path, prior, note={"data": "notmnist"})
    found = read_size(tmp_path, SIZE)
    assert found is not None
    np.testing.assert_array_equal(found.train, prior.train)
    np.testing.assert_array_equal(found.held_out, prior.held_out)
    jax.tree.map(np.testing.assert_array_equal, found.vae.params, prior.vae.params)


def test_a_missing_size_is_named(tmp_path, prior):
    write_size(tmp_path / "seed0" / "priors", prior, note={})
    where = str(tmp_path)
    assert set(resolve_priors(where, [SIZE], flag="prior.source", seed=4)) == {SIZE}
    with pytest.raises(UserError, match=r"--prior.source is .*priors of 5x5 kernels; expected 7x7"):
        resolve_priors(where, [(7, 7), SIZE], flag="prior.source", seed=0)


def test_a_damaged_prior_is_named(tmp_path, prior):
    write_size(tmp_path, prior, note={})
    (tmp_path / "5x5-slices.npz").unlink()
    with pytest.raises(UserError, match=r"lacks 5x5-slices\.npz"):
        read_size(tmp_path, SIZE)
    (tmp_path / "5x5.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"5x5.safetensors cannot be read"):
        read_size(tmp_path, SIZE)


def test_filters_need_as_many_slices_as_the_layer_has(prior, digits):
    module = create_model("fconv_mnist", widths=(20, 30))
    params = module.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    start = start_from({SIZE: prior.initializer("filters")}, seed=0)
    with pytest.raises(UserError, match="60 source slices are too few"):
        start(params, {})
    images = dataclasses.replace(
        digits, train=Split(np.zeros((1, 28, 28, 1), np.uint8), np.zeros(1, np.int32))
    )
    assert kernel_sizes(module, images) == [(7, 7), (5, 5)]


def test_initial_kernels_are_inside_the_means(prior):
    module = create_model("fconv_mnist", widths=(2, 3))
    params: Any = module.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    initializers = {SIZE: prior.initializer("vae")}
    plain, _ = start_from(initializers, seed=0)(params, {})
    inside, _ = start_from(initializers, seed=0, inside="mean")({"mean": params, "spread": 1}, {})
    jax.tree.map(np.testing.assert_array_equal, plain, inside["mean"])
    assert not np.array_equal(plain["conv2"]["kernel"], params["conv2"]["kernel"])
    np.testing.assert_array_equal(plain["conv1"]["kernel"], params["conv1"]["kernel"])


def test_the_elbo_is_below_the_estimate_of_the_density(prior):
    config = VAEConfig(samples=200, measured=15)
    found, arrays = measures.prior_measures(prior, config, seed=0)
    assert found["elbo.5x5"].count == 15
    elbo, density, gaussian, gain = (
        float(found[f"{name}.5x5"].value or 0)
        for name in ("elbo", "log_density", "gaussian", "gain")
    )
    # The mean over slices is ordered; single slices have the noise of the draws.
    assert elbo <= density + 0.05
    assert gain == pytest.approx(elbo - gaussian, abs=1e-4)
    assert {name: array.shape for name, array in arrays.items()} == {
        "source/5x5": (40, 5, 5),
        "sample/5x5": (64, 5, 5),
        "mean/5x5": (64, 5, 5),
    }
    bare = dataclasses.replace(prior, held_out=prior.held_out[:0])
    assert measures.prior_measures(bare, config, seed=0)[0] == {}


def test_frozen_convolutions_get_no_gradient():
    network = FrozenConvolutions(create_model("fconv_mnist", widths=(2, 3)))
    x = jax.random.normal(jax.random.key(1), (2, 28, 28, 1))
    variables = network.init(jax.random.key(0), x)
    gradient = jax.grad(lambda v: jnp.sum(network.apply(v, x, train=True) ** 2))(variables)
    for name, tree in gradient["params"].items():
        zero = all(not np.any(leaf) for leaf in jax.tree.leaves(tree))
        assert zero == name.startswith("conv")


def test_the_bound_of_images_is_the_likelihood_less_the_divergence():
    logits = jnp.asarray([[2.0, -1.0]]).reshape(1, 1, 2, 1)
    images = jnp.asarray([[1.0, 0.25]]).reshape(1, 1, 2, 1)
    p = 1 / (1 + np.exp(-np.array([2.0, -1.0])))
    likelihood = np.log(p[0]) + 0.25 * np.log(p[1]) + 0.75 * np.log(1 - p[1])
    found = image_vae.bounds((logits, jnp.asarray([0.5])), images)
    np.testing.assert_allclose(found, [likelihood - 0.5], rtol=1e-5)


def test_ensembles_average_probabilities(digits):
    from adaptive_nets.data.device import put_on_devices
    from adaptive_nets.training.config import DataConfig

    class Constant:
        def apply(self, variables, x, train):
            del train
            return jnp.broadcast_to(variables["params"]["logits"][None], (len(x), 2))

    labels = np.array([0, 1, 1, 0, 1], np.int32)
    split = Split(np.zeros((5, 2, 2, 1), np.uint8), labels)
    data = dataclasses.replace(digits, train=split, test=split, num_classes=2)
    _, test = put_on_devices(data, DataConfig(centre="none"), jax.device_put)
    members = [{"logits": jnp.asarray(m)} for m in ([0.0, 0.0], [0.0, np.log(3.0)])]
    found = measures.ensemble_measures(Constant(), members, test, classes=2)  # pyright: ignore
    # Probabilities of class 1 are 1/2 and 3/4.
    nll = -(3 * np.log(0.625) + 2 * np.log(0.375)) / 5
    assert found["ensemble_nll"].value == pytest.approx(nll, rel=1e-5)
    assert found["accuracy"].value == pytest.approx(60)
    assert found["sample_accuracy"].value == pytest.approx(50)


class TestConfigurations:
    """Flags that do not fit."""

    def test_a_learnt_prior_needs_its_source(self):
        for changes in ({"kind": "dwp"}, {"init": "filters"}):
            with pytest.raises(UserError, match=r"--prior.source is ''; expected the folder"):
                PriorConfig(**changes)  # pyright: ignore[reportArgumentType]

    def test_pretrained_kernels_need_weights(self):
        config = find_experiment("dwp.mnist.n50-log-uniform").presets["paper"].config
        with pytest.raises(UserError, match=r"--start.weights is ''; expected a run"):
            dataclasses.replace(config, prior=PriorConfig(init="pretrained"))

    def test_every_row_of_the_tables_is_an_experiment(self):
        ids = {experiment.id for experiment in EXPERIMENTS}
        for target, priors in few_shot.OF_TARGET.items():
            width = 20 if target == "shapes" else 0
            names = {few_shot.name_of(target, n, p, width) for n in few_shot.LABELS[target]
                     for p in priors}  # fmt: skip
            assert {f"dwp.{name}" for name in names} <= ids

    @pytest.mark.parametrize("target", few_shot.LABELS)
    def test_batches_divide_the_labels(self, target):
        for experiment in EXPERIMENTS:
            config = experiment.presets["paper"].config
            count = getattr(getattr(config, "labels", None), "count", 0)
            if count and experiment.id.startswith(f"dwp.{target}"):
                assert count % config.train.data.batch_size == 0
                assert config.train.data.batch_size <= 256


def test_parts_and_figures_without_records():
    for part in tables.PARTS.values():
        assert "Not run" in part([])
    assert all(not picture([]) for picture in figures.PICTURES.values())


def test_the_bound_of_published_priors_is_above_the_estimate_of_the_divergence():
    """-ELBO(w) is above the importance-weighted estimate of -log p(w) on held-out kernels."""
    records = [r for r in collect([PUBLISHED]) if r.experiment.startswith("dwp.priors.")]
    if not records:
        pytest.skip("no prior is published")
    for record in records:
        for size in ("7x7", "5x5", "16x16"):
            elbo, density = (record.metric(f"{n}.{size}") for n in ("elbo", "log_density"))
            if elbo is not None and density is not None:
                assert (elbo.value or 0) <= (density.value or 0)
                assert density.count >= 100


@pytest.mark.slow
def test_a_run_on_few_labels_and_what_it_leaves(call, tmp_path):
    shapes = ("run", "dwp.shapes-h20.n20-dwp", "--preset", "smoke", "--out", "r")
    code, _, err = call(*shapes, "--labels.count", "21")
    assert code == 2
    assert "--labels.count is 21; expected a multiple of 4" in err
    code, _, err = call(*shapes, "--prior.source", "none")
    assert code == 2
    assert "--prior.source is 'none', which does not exist" in err
    code, _, err = call(*shapes)
    assert code == 0, err
    record = read_record(tmp_path / "r" / "seed0" / "record.json")
    accuracy, labels = record.metric("accuracy"), record.metric("labels")
    assert accuracy is not None
    assert labels is not None
    assert (accuracy.count, labels.value) == (40, 8)
    module, variables, _ = load_run(tmp_path / "r")
    logits: Any = module.apply(variables, jnp.zeros((1, 28, 28, 1)))
    assert logits.shape == (1, 4)


def test_show_counts_the_network_that_the_configuration_makes(call):
    code, out, _ = call("show", "dwp.mnist.n50-dwp", "--preset", "smoke", "--json")
    assert code == 0
    network = json.loads(out)["network"]
    # Convolutions of 7x7 and 5x5 with 2 and 3 channels, and a dense layer of 3x3x3 inputs.
    assert network["parameters"] == (49 * 2 + 2) + (25 * 2 * 3 + 3) + (27 * 10 + 10)


@pytest.mark.parametrize("name", ["dwp.shapes-h20.n20-dwp", "dwp.convergence.vae-xavier"])
def test_a_wrong_number_of_widths_is_one_line(call, name):
    code, _, err = call(
        "run", name, "--preset", "smoke", "--out", "r", "--network.widths", "3", "4", "5"
    )
    assert code == 2
    assert "--network.widths" in err
    assert err.rstrip().count("\n") <= 1
