"""Gradient noise of the two forms of sparse variational dropout: closed forms, bins, records."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import write_run
from tolerances import close

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import Split
from adaptive_nets.layers.sparse_vd import SparseConv, SparseDense
from adaptive_nets.models import create_model
from adaptive_nets.variational.sparsity import layer_log_alpha, variational_layers
from experiments.__main__ import main
from experiments.papers.sparse_vd.configs.parameterisation import FORMS
from experiments.papers.sparse_vd.figures import PICTURES, figures, forms
from experiments.papers.sparse_vd.gradient_noise import (
    EDGES,
    GradientNoise,
    Moments,
    as_additive,
    compared_weights,
    draws_after_training,
    local_gradients,
    make_gradient_moments,
    over_rates,
    sampled_gradients,
    summarise,
)
from experiments.papers.sparse_vd.recorded_noise import PANELS
from experiments.papers.sparse_vd.tables import gradient_noise as gradient_noise_table
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.records import read_record

EXAMPLES, INPUTS, OUTPUTS = 7, 5, 3
# Of the layer, under the root.
FLOOR = 1e-8


def linear_case(key):
    """Returns inputs, targets, and parameters of a linear layer in the additive form."""
    keys = jax.random.split(key, 4)
    x, targets = (
        jax.random.normal(keys[0], (EXAMPLES, INPUTS)),
        jax.random.normal(keys[1], (EXAMPLES, OUTPUTS)),
    )
    theta = 0.3 * jax.random.normal(keys[2], (INPUTS, OUTPUTS))
    rates = jax.random.uniform(keys[3], (INPUTS, OUTPUTS), minval=-4.0, maxval=4.0)
    params = {
        "kernel": theta,
        "log_sigma2": rates + jnp.log(jnp.square(theta)),
        "bias": jnp.zeros(OUTPUTS),
    }
    return x, targets, params


def loss_of(layer, x, function):
    def loss(params, key, batch):
        outputs = layer.apply({"params": params}, x, train=True, rngs={"noise": key})
        return function(outputs, batch)

    return loss


def dense(form="additive"):
    return SparseDense(OUTPUTS, mask_in_training=False, parameterisation=form)


def noise_of_outputs(x, params):
    """Returns deviations s of the outputs, float64[N, O], and ∂s/∂θ at fixed α, [N, I, O]."""
    x, theta = np.asarray(x, np.float64), np.asarray(params["kernel"], np.float64)
    sigma2 = np.exp(np.asarray(params["log_sigma2"], np.float64))
    deviation = np.sqrt(x**2 @ sigma2 + FLOOR)
    return deviation, x[:, :, None] ** 2 * (sigma2 / theta) / deviation[:, None, :]


def check_variance(found, expected, draws, kurtosis):
    """Checks sample variances against the truth, within five of their standard errors."""
    error = np.sqrt((kurtosis - 1) / draws)
    np.testing.assert_allclose(found, expected, rtol=5 * error)


def test_a_linear_loss_has_noise_in_the_multiplicative_form_alone(key):
    """If L = Σ c·y, then ∂L/∂θ|σ = Σ c·x and ∂L/∂θ|α = Σ c·(x + ε·∂s/∂θ)."""
    x, c, params = linear_case(key)
    draws = 2000
    loss = loss_of(dense(), x, lambda y, c: jnp.sum(c * y))
    found = make_gradient_moments(local_gradients(loss))(params, key, c, draws=draws)
    additive, multiplicative = (found[form][""] for form in ("additive", "multiplicative"))
    _, slopes = noise_of_outputs(x, params)
    expected = np.einsum("no,nio->io", np.asarray(c) ** 2, slopes**2)
    close(additive.mean, np.asarray(x).T @ np.asarray(c), terms=EXAMPLES, gradient=True)
    assert np.max(additive.variance) < 1e-10 * np.min(expected)
    check_variance(multiplicative.variance, expected, draws, kurtosis=3)
    standard_error = np.sqrt(expected / draws)
    assert np.all(np.abs(multiplicative.mean - additive.mean) < 5 * standard_error)


def test_a_quadratic_loss_has_the_known_moments_in_both_forms(key):
    """If L = ½ Σ (y − t)² and y = Γ + s·ε, then ∂L/∂θ|α = Σ (Γ − t + s·ε)·(x + ε·∂s/∂θ)."""
    x, targets, params = linear_case(key)
    draws = 4000
    loss = loss_of(dense(), x, lambda y, t: 0.5 * jnp.sum(jnp.square(y - t)))
    found = make_gradient_moments(local_gradients(loss))(params, key, targets, draws=draws)
    s, slopes = noise_of_outputs(x, params)
    s, inputs = s[:, None], np.asarray(x, np.float64)[:, :, None]
    error = (np.asarray(x) @ np.asarray(params["kernel"]) - np.asarray(targets))[:, None]
    means = {
        "additive": np.sum(error * inputs, axis=0),
        "multiplicative": np.sum(error * inputs + s * slopes, axis=0),
    }
    variances = {
        "additive": np.sum((s * inputs) ** 2, axis=0),
        "multiplicative": np.sum(
            (error * slopes + s * inputs) ** 2 + 2 * (s * slopes) ** 2, axis=0
        ),
    }
    for form in FORMS:
        # A square of a Gaussian has a kurtosis of 15.
        check_variance(found[form][""].variance, variances[form], draws, kurtosis=15)
        standard_error = np.sqrt(variances[form] / draws)
        assert np.all(np.abs(found[form][""].mean - means[form]) < 5 * standard_error)


def test_sampled_weights_have_the_papers_factor(key):
    """If L = Σ c·xw, then ∂L/∂w = Σ c·x =: g; the multiplicative form has the variance α·g²."""
    x, c, params = linear_case(key)
    draws = 2000

    def loss(plain, key, c):
        assert set(plain["layer"]) == {"kernel", "bias"}
        return jnp.sum(c * (x @ plain["layer"]["kernel"]))

    estimate = make_gradient_moments(sampled_gradients(loss))
    found = estimate({"layer": params}, key, c, draws=draws)
    additive, multiplicative = (found[form]["layer"] for form in ("additive", "multiplicative"))
    slope = np.asarray(x).T @ np.asarray(c)
    expected = np.exp(layer_log_alpha(params)) * slope**2
    close(additive.mean, slope, terms=EXAMPLES, gradient=True)
    assert np.max(additive.variance) < 1e-10 * np.min(expected)
    check_variance(multiplicative.variance, expected, draws, kurtosis=3)
    assert np.all(np.abs(multiplicative.mean - slope) < 5 * np.sqrt(expected / draws))


@pytest.mark.parametrize("layer", [SparseDense, SparseConv])
def test_the_gradient_of_the_multiplicative_form_is_that_of_its_layer(layer, key):
    """Draw by draw: two draws g and h have the mean (g + h)/2 and the variance (g − h)²/2."""
    x = jax.random.normal(key, (3, 7) if layer is SparseDense else (2, 5, 7, 3))
    forms = {f: layer(5, mask_in_training=False, parameterisation=f) for f in FORMS}
    params = forms["multiplicative"].init(key, x)["params"]
    # Rates on both sides of the clip.
    params["log_alpha"] = jax.random.uniform(key, params["kernel"].shape, minval=-12.0, maxval=12.0)

    def square(outputs, batch):
        return jnp.mean(jnp.square(outputs - batch))

    estimate = make_gradient_moments(local_gradients(loss_of(forms["additive"], x, square)))
    found = estimate(params, key, jnp.float32(0.5), draws=2)
    direct = jax.grad(loss_of(forms["multiplicative"], x, square))
    first, second = (
        np.asarray(direct(params, jax.random.fold_in(key, i), jnp.float32(0.5))["kernel"])
        for i in range(2)
    )
    moments = found["multiplicative"][""]
    close(moments.mean, (first + second) / 2, terms=x.size, gradient=True)
    close(moments.variance, (first - second) ** 2 / 2, terms=x.size, gradient=True)
    # Beyond the clip the forms have the same gradient, within it they have not.
    outside = np.abs(params["log_alpha"]) > 8
    additive = found["additive"][""]
    np.testing.assert_allclose(additive.mean[outside], moments.mean[outside], rtol=1e-5)
    assert not np.any(np.isclose(additive.mean[~outside], moments.mean[~outside], rtol=1e-7))


def test_a_weight_of_zero_has_the_same_finite_noise_in_both_forms(key):
    x, targets, params = linear_case(key)
    params["kernel"] = params["kernel"].at[1, 2].set(0.0).at[2, 0].set(1e-39)
    loss = loss_of(dense(), x, lambda y, t: jnp.sum(jnp.square(y - t)))
    moments = {
        form: layers[""]
        for form, layers in make_gradient_moments(local_gradients(loss))(
            params, key, targets, draws=3
        ).items()
    }
    for found in moments.values():
        assert np.all(np.isfinite(found.mean))
        assert np.all(np.isfinite(found.variance))
    for place in ((1, 2), (2, 0)):
        assert moments["additive"].variance[place] == moments["multiplicative"].variance[place] > 0
    plain = sampled_gradients(lambda plain, key, t: jnp.sum(jnp.square(x @ plain["kernel"] - t)))
    for layers in make_gradient_moments(plain)(params, key, targets, draws=3).values():
        assert np.all(np.isfinite(layers[""].variance))
    # Its dropout rate is infinite, so it is in no bin.
    rates = np.asarray(layer_log_alpha(params))
    assert rates[1, 2] > 100
    assert not compared_weights(moments, rates)[1, 2]


def test_the_two_forms_convert_to_the_same_posterior(key):
    x = jax.random.normal(key, (2, INPUTS))
    params = {"a": {"b": dense("multiplicative").init(key, x)["params"]}, "scale": jnp.ones(2)}
    params["a"]["b"]["kernel"] = params["a"]["b"]["kernel"].at[0, 0].set(0.0)
    converted = as_additive(params)
    assert set(converted["a"]["b"]) == {"kernel", "bias", "log_sigma2"}
    ((path, _, rates),) = variational_layers(converted)
    assert path == "a/b"
    np.testing.assert_allclose(rates, params["a"]["b"]["log_alpha"], rtol=1e-5, atol=1e-5)
    again = as_additive(converted)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, again, converted))
    sampled = [
        dense(form).apply({"params": tree["a"]["b"]}, x, train=True, rngs={"noise": key})
        for form, tree in (("multiplicative", params), ("additive", converted))
    ]
    np.testing.assert_allclose(sampled[0], sampled[1], rtol=1e-4, atol=1e-6)


def test_few_draws_are_refused(key):
    x, targets, params = linear_case(key)
    estimate = make_gradient_moments(
        local_gradients(loss_of(dense(), x, lambda y, t: jnp.sum(y * t)))
    )
    with pytest.raises(ValueError, match="draws is 1; expected at least 2"):
        estimate(params, key, targets, draws=1)


def made_up_moments():
    mean = np.array([[1.0, 2.0, 0.0], [4.0, 5.0, 6.0]], np.float32)
    variance = np.array([[4.0, 1.0, 0.0], [1.0, 0.0, 9.0]], np.float32)
    return {"additive": Moments(mean, variance), "multiplicative": Moments(mean, 4 * variance)}


def test_bins_hold_their_left_edge_and_may_be_empty():
    # The third weight has no gradient; the last is at the clip.
    rates = np.array([[-8.0, 0.1, 0.1], [0.2, 0.5, 8.0]], np.float32)
    bins = over_rates(made_up_moments(), rates)["multiplicative"]
    counts = {float(EDGES[i]): found.weights for i, found in enumerate(bins) if found.weights}
    assert counts == {-8.0: 1, 0.0: 2, 0.5: 1}
    empty = bins[1]
    assert np.isnan([empty.median_variance, empty.mean_variance, empty.signal_to_noise]).all()
    assert bins[0].signal_to_noise == pytest.approx(0.25)
    assert bins[16].mean_variance == pytest.approx(4.0)
    assert bins[16].signal_to_noise == pytest.approx((1.0 + 2.0) / 2)
    assert np.isinf(bins[17].signal_to_noise)
    whole = summarise(made_up_moments(), rates)["additive"]
    assert (whole.weights, whole.median_variance) == (4, 1.0)
    assert whole.mean_variance == pytest.approx(1.5)


def test_a_layer_beyond_the_clip_has_no_summary():
    for found in summarise(made_up_moments(), np.full((2, 3), 9.0)).values():
        assert found.weights == 0
        assert np.isnan(found.median_variance)


def test_a_network_in_the_multiplicative_form_is_measured_in_both(key, rng):
    images = rng.integers(0, 256, (7, 8, 8, 1)).astype(np.uint8)
    images[:, :, 3] = 128
    train = Split(images, rng.integers(0, 10, 7).astype(np.int32))
    test = DeviceSplit(
        {"image": jnp.asarray(images[:2]), "label": jnp.zeros(2, jnp.int32)},
        offset=jnp.full((1, 1, 1), 0.5), scale=jnp.ones((1, 1, 1)), pixel_scale=jnp.float32(256),
    )  # fmt: skip
    network, plain = (
        create_model(f"linear_digits{name}", num_classes=10) for name in ("_sparse_vd", "")
    )
    noise = GradientNoise(network, plain, train, batch_size=5)
    multiplicative = create_model(
        "linear_digits_sparse_vd", num_classes=10, parameterisation="multiplicative"
    )
    variables = multiplicative.init(key, jnp.zeros((1, 8, 8, 1)))
    rates = jnp.full_like(variables["params"]["fc1"]["kernel"], 3.1)
    variables["params"]["fc1"]["log_alpha"] = rates
    logged = noise.assess(variables, test)
    assert set(logged) == {f"gradient_variance/{form}/fc1" for form in FORMS}
    metrics, arrays = noise.after_training(variables, test, draws=40)
    # The pixels of one column are zero after normalisation, so their weights have no gradient.
    assert arrays["gradient_weights.fc1"].tolist() == [
        560 if edge == 3 else 0 for edge in EDGES[:-1]
    ]
    for prefix in ("", "sampled_"):
        for form in FORMS:
            for name in ("variance", "mean_variance", "snr"):
                key = f"{prefix}gradient_{name}.{form}.fc1"
                assert metrics[key].count == 560
                assert metrics[key].value == pytest.approx(arrays[key][22], rel=1e-6)
                assert np.isnan(np.delete(arrays[key], 22)).all()
    # With sampled weights, 1 + α times as noisy if the gradient hardly depends on one weight.
    sampled = [metrics[f"sampled_gradient_snr.{form}.fc1"].value for form in FORMS]
    assert sampled[0] < 0.5 * sampled[1]


@pytest.mark.slow
def test_a_run_records_the_noise_over_training_and_after_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)
    flags = (
        "--schedule.length",
        "8 steps",
        "--data.source",
        "embedded",
        "--data.train-limit",
        "1000",
    )
    name = "sparse_vd.parameterisation.lenet-300-100-multiplicative"
    assert main(["run", name, "--preset", "smoke", "--out", "run", *flags]) == 0
    record = read_record(tmp_path / "run" / "seed0" / "record.json")
    arrays = record.arrays()
    assert arrays["gradient_draws"] == 2
    for layer in ("fc1", "fc2", "fc3"):
        for form in FORMS:
            logged = record.history[f"gradient_variance/{form}/{layer}"]
            assert [step for step, _ in logged] == [4, 8]
            metric = record.metric(f"gradient_variance.{form}.{layer}")
            assert metric is not None
            assert metric.value is not None
            assert metric.count == arrays[f"gradient_weights.{layer}"].sum() > 0


def test_the_measurement_takes_a_small_part_of_a_run():
    assert [draws_after_training(steps) for steps in (1, 3000, 10**6)] == [2, 75, 256]


def write_noise(root, form, *, arrays=True):
    """Writes a record in which the multiplicative form is exp(log α) + 1 times as noisy."""
    middles = (EDGES[:-1] + EDGES[1:]) / 2
    found, metrics, curves = {}, {"error": Metric(1.7, "%", 10000)}, {}
    for i, layer in enumerate(("fc3", "fc1")):
        counts = np.full(32, 1000 * i + 5)
        counts[5:30] += 10
        found[f"gradient_weights.{layer}"] = counts
        for which in FORMS:
            factor = np.exp(middles) + 1 if which == "multiplicative" else np.ones(32)
            curves[f"gradient_variance/{which}/{layer}"] = [[500, 1e-6], [1000, 2e-6]]
            for prefix in ("", "sampled_"):
                for name in ("variance", "mean_variance", "snr"):
                    key = f"{prefix}gradient_{name}.{which}.{layer}"
                    values = 1e-7 * factor
                    values[0] = np.nan
                    found[key] = values.astype(np.float32)
                    metrics[key] = Metric(float(values[3]), "nats²", 100)
    if arrays:
        found |= {"gradient_edges": EDGES, "gradient_draws": np.array(256)}
    outcome = Outcome(metrics, found if arrays else {}, seconds=1.0, steps=1000)
    name = f"sparse_vd.parameterisation.lenet-300-100-{form}"
    return write_run(root, name, outcome, curves, preset="quick")


def test_the_noise_is_drawn_and_told_from_records(tmp_path):
    records = [write_noise(tmp_path, form) for form in FORMS]
    (figure,) = [f for f in figures(records) if getattr(f, "title", "") == forms.TITLE]
    assert "256 draws" in figure.caption
    assert len(figure.svg) == 5
    assert all(len(row) == len(figure.data["columns"]) for row in figure.data["rows"])
    json.dumps(figure.data, allow_nan=False)
    drawn = {(row[0], row[1], row[2]): row[3] for row in figure.data["rows"]}
    panel = "Variance, multiplicative over additive, fc1"
    ratio = drawn[panel, "sampled weights, additive run", 0.25]
    assert ratio == pytest.approx(np.exp(0.25) + 1, rel=1e-5)
    # fc3 has too few weights in its outer bins.
    title = "Variance of the gradient, fc3"
    assert {row[2] for row in figure.data["rows"] if row[0] == title} == set(
        ((EDGES[:-1] + EDGES[1:]) / 2)[5:30]
    )
    for name, what in PANELS.items():
        assert PICTURES[name](records).startswith("<svg")
        assert f"![{what}](../../results/figures/{name})" in gradient_noise_table(records)
    text = gradient_noise_table(records)
    assert "additive form is 1.0 at log α = -7.25 and 2,300 at log α = 7.75 with the noise" in text
    assert text.count("| fc1 |") == text.count("| fc3 |") == 2


def test_records_without_the_noise_are_left_out(tmp_path):
    records = [write_noise(tmp_path, form, arrays=False) for form in FORMS]
    for chosen in ([], records):
        assert gradient_noise_table(chosen) == "Not measured.\n"
        assert all(PICTURES[name](chosen) == "" for name in PANELS)
