"""Stopping distributions, their samples and relaxations against closed forms and frequencies."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from tolerances import close

from adaptive_nets.halting import (
    expected_units,
    log_stick_breaking,
    relaxed_bernoulli,
    relaxed_bernoulli_logits,
    sample_indicators,
    stick_breaking,
    stopping_unit,
    survival,
    threshold_indicators,
    units_that_run,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

DRAWS = 20_000


def stopping_distribution(probs):
    """q(z = l) by its definition, in Python."""
    reach, q = 1.0, []
    for h in [*probs[:-1], 1.0]:
        q.append(reach * h)
        reach *= 1 - h
    return np.array(q)


@pytest.mark.parametrize("last", [0.0, 0.4, 1.0])
def test_worked_example(last):
    """With h = (.4, .4, .4, 1) E z = 2.176, all units run by threshold, and z = 1 is the mode."""
    probs = jnp.array([0.4, 0.4, 0.4, last])
    assert float(expected_units(probs)) == pytest.approx(2.176, abs=1e-6)
    weights = stick_breaking(probs)
    close(weights, [0.4, 0.24, 0.144, 0.216])
    assert int(jnp.argmax(weights)) == 0
    assert int(stopping_unit(threshold_indicators(probs))) == 4


def test_expected_units_at_the_initial_bias():
    """σ(−3) in all heads: 4.55 of 5 units and 12.3 of 18."""
    h = float(special.expit(-3.0))
    for units, expected, places in [(5, 4.55, 2), (18, 12.3, 1)]:
        value = float(expected_units(jnp.full((units,), h)))
        assert round(value, places) == expected
        assert value == pytest.approx((1 - (1 - h) ** units) / h, rel=1e-6)


@pytest.mark.parametrize("shape", [(1,), (6,), (3, 1), (2, 3, 5), (0, 3)])
def test_distribution_sums_to_one_and_has_the_expectation(shape, rng):
    probs = rng.random(shape)
    flat = probs.reshape(-1, shape[-1])
    q = np.array([stopping_distribution(row) for row in flat]).reshape(shape)
    with jax.enable_x64(True):
        weights, mean, reach, logs = jax.jit(
            lambda h, s: (stick_breaking(h), expected_units(h), survival(h), log_stick_breaking(s))
        )(probs, special.logit(probs))
        close(weights, q, dtype=jnp.float64, terms=9)
        expected = (q * np.arange(1, shape[-1] + 1)).sum(-1)
        close(mean, expected, dtype=jnp.float64, terms=9)
        reached = np.flip(np.cumsum(np.flip(q, -1), -1), -1)
        close(reach, reached, dtype=jnp.float64, terms=9)
        close(jnp.exp(logs), q, dtype=jnp.float64, terms=25)


def test_logarithm_does_not_saturate():
    """In float32 σ(40) is 1: the product form loses the tail, the logarithm and its slope not."""
    logits = jnp.array([40.0, 40.0, -40.0, 0.0])
    logs = log_stick_breaking(logits)
    close(logs, [0.0, -40.0, -120.0, -80.0])
    slope = jax.grad(lambda s: log_stick_breaking(s)[3])(logits)
    close(slope, [-1.0, -1.0, 0.0, 0.0])
    assert float(stick_breaking(jax.nn.sigmoid(logits))[3]) == 0.0


@pytest.mark.parametrize("case", ["inside", "certain"])
def test_gradients_equal_finite_differences(case, rng):
    """At probabilities 0 and 1 too, where a quotient of products would divide by zero."""
    probs = rng.uniform(0.1, 0.9, (2, 5))
    if case == "certain":
        probs = np.array([[0.0, 1.0, 0.3, 1.0, 0.2], [1.0, 1.0, 0.0, 0.5, 1.0]])
    direction = rng.normal(size=probs.shape)
    with jax.enable_x64(True):
        # Every entry is linear in each probability alone, so central differences are exact.
        for function in (
            lambda h: jnp.sum(stick_breaking(h) * direction),
            lambda h: jnp.sum(expected_units(h)),
        ):
            gradient = np.asarray(jax.jit(jax.grad(function))(jnp.asarray(probs)))
            value = jax.jit(function)
            for index in np.ndindex(probs.shape):
                shift = np.zeros_like(probs)
                shift[index] = 0.25
                slope = (value(probs + shift) - value(probs - shift)) / 0.5
                assert gradient[index] == pytest.approx(float(slope), abs=1e-12)
            assert (gradient[:, -1] == 0).all()


def test_discrete_indicators_copy_one_state():
    """ẑ of hard indicators is the indicator of z, and the mask runs up to it."""
    rows = jnp.array([[0, 0, 1, 1, 0], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], jnp.float32)
    units = stopping_unit(rows)
    np.testing.assert_array_equal(units, [3, 1, 5])
    np.testing.assert_array_equal(stick_breaking(rows), np.eye(5)[np.asarray(units) - 1])
    np.testing.assert_array_equal(survival(rows), units_that_run(units, 5))
    np.testing.assert_array_equal(stopping_unit(rows.astype(bool)), units)


def test_samples_have_the_stopping_distribution(key):
    probs = np.array([0.2, 0.5, 0.1, 0.7, 0.3])
    draws = jnp.broadcast_to(jnp.asarray(probs, jnp.float32), (DRAWS, 5))
    units = np.asarray(stopping_unit(sample_indicators(key, draws)))
    counts = np.bincount(units, minlength=6)[1:]
    assert stats.chisquare(counts, DRAWS * stopping_distribution(probs)).pvalue > 1e-3


def test_last_unit_always_stops(key):
    probs = jnp.zeros((7, 3))
    for indicators in (sample_indicators(key, probs), threshold_indicators(probs)):
        assert indicators.dtype == jnp.bool_
        np.testing.assert_array_equal(indicators, [[False, False, True]] * 7)
    np.testing.assert_array_equal(stopping_unit(jnp.zeros((2, 1), bool)), [1, 1])


def test_threshold_is_strict():
    np.testing.assert_array_equal(
        threshold_indicators(jnp.array([0.5, 0.50001, 0.4, 0.0])), [False, True, False, True]
    )
    lower = threshold_indicators(jnp.array([0.3, 0.1, 0.0]), threshold=0.2)
    np.testing.assert_array_equal(lower, [True, False, True])


@pytest.mark.parametrize("temperature", [0.3, 2 / 3, 1.0, 4.0])
def test_relaxed_samples_have_the_concrete_distribution(temperature, key):
    """λ·logit ξ̂ − logit h is logistic, and half of the mass split is h, at every temperature."""
    h = 0.3
    logits = jnp.full((DRAWS,), special.logit(h), jnp.float32)
    noise = relaxed_bernoulli_logits(key, logits, temperature) * temperature - logits
    assert stats.kstest(np.asarray(noise), "logistic").pvalue > 1e-3
    samples = np.asarray(relaxed_bernoulli(key, logits, temperature))
    assert ((samples >= 0) & (samples <= 1)).all()
    assert stats.binomtest(int((samples > 0.5).sum()), DRAWS, h).pvalue > 1e-3

    # Density of the binary Concrete distribution (Maddison et al.), by its distribution function.
    def distribution(s):
        return special.expit(temperature * special.logit(s) - special.logit(h))

    interior = samples[(samples > 1e-5) & (samples < 1 - 1e-5)]
    edges = np.quantile(interior, [0.1, 0.3, 0.5, 0.7, 0.9])
    for edge in edges:
        share = (samples < edge).mean()
        assert share == pytest.approx(float(distribution(edge)), abs=5 * 0.5 / np.sqrt(DRAWS))


def test_one_draw_per_element(key):
    samples = np.asarray(relaxed_bernoulli(key, jnp.zeros((4, 5, 6)), 1.0))
    assert len(np.unique(samples)) == samples.size


def test_relaxation_is_reparameterised(key):
    """Slope in the logits and in the temperature, in float64 against finite differences."""
    with jax.enable_x64(True):
        logits = jnp.linspace(-3.0, 3.0, 7, dtype=jnp.float64)

        @jax.jit
        def total(shift, temperature):
            return jnp.sum(relaxed_bernoulli(key, logits + shift, temperature) ** 2)

        slopes = jax.jit(jax.grad(total, argnums=(0, 1)))(0.0, 0.7)
        step = 1e-6
        by_logits = (total(step, 0.7) - total(-step, 0.7)) / (2 * step)
        by_temperature = (total(0.0, 0.7 + step) - total(0.0, 0.7 - step)) / (2 * step)
        assert float(slopes[0]) == pytest.approx(float(by_logits), rel=1e-7)
        assert float(slopes[1]) == pytest.approx(float(by_temperature), rel=1e-7)
        assert relaxed_bernoulli(key, logits, 0.7).dtype == jnp.float64


def test_certain_heads_are_discrete_at_any_temperature(key):
    """Probabilities near 0 and 1: relaxed weights are those of the thresholded block."""
    logits = jnp.array([[-60.0, -60, 60, 60, 0], [60, -60, 60, -60, 0], [-60, -60, -60, -60, 0]])
    for temperature in (0.3, 1.0):
        weights = stick_breaking(relaxed_bernoulli(key, logits, temperature))
        np.testing.assert_allclose(weights, np.eye(5)[[2, 0, 4]], atol=1e-6)


def test_low_temperature_is_discrete(key):
    samples = np.asarray(relaxed_bernoulli(key, jnp.zeros((1000,)), 1e-4))
    assert ((samples < 1e-3) | (samples > 1 - 1e-3)).mean() > 0.99


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_noise_and_sticks_are_kept_in_single_precision(dtype, key):
    logits = jnp.full((100, 6), 2.0, dtype)
    samples = jax.jit(relaxed_bernoulli)(key, logits, 0.5)
    assert samples.dtype == jnp.float32
    for function in (stick_breaking, expected_units, log_stick_breaking, survival):
        assert jax.eval_shape(function, logits).dtype == jnp.float32
    assert len(np.unique(np.asarray(samples))) > 500


def test_jit_and_vmap_equal_eager(key, rng):
    probs = jnp.asarray(rng.random((3, 4, 5)), jnp.float32)
    for function in (stick_breaking, expected_units, log_stick_breaking, survival):
        close(jax.jit(function)(probs), function(probs))
        close(jax.jit(jax.vmap(jax.vmap(function)))(probs), function(probs))
    close(jax.jit(relaxed_bernoulli)(key, probs, 0.5), relaxed_bernoulli(key, probs, 0.5))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf"), "hot", None])
def test_bad_temperature_is_one_line(temperature, key):
    with pytest.raises(UserError, match=r"^temperature is .*; expected a finite number above 0$"):
        relaxed_bernoulli(key, jnp.zeros((3,)), temperature)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -2])
def test_bad_threshold_is_one_line(threshold):
    with pytest.raises(UserError, match=r"^threshold is .*; expected a number in \(0, 1\)"):
        threshold_indicators(jnp.zeros((3,)), threshold=threshold)


@pytest.mark.parametrize(
    "function", [stick_breaking, expected_units, survival, log_stick_breaking, stopping_unit]
)
def test_no_units_is_one_line(function):
    with pytest.raises(UserError, match=r"has shape \(\); expected \[..., L\]"):
        function(jnp.float32(0.5))
    with pytest.raises(UserError, match=r"has shape \(2, 0\); expected"):
        function(jnp.zeros((2, 0)))


def test_logits_must_be_floating(key):
    with pytest.raises(UserError, match="logits has dtype int32; expected a floating-point dtype"):
        relaxed_bernoulli(key, jnp.zeros((2,), jnp.int32), 1.0)
