"""Schedules and optimisers against formulas written out here."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tolerances import close

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import OptimiserConfig, ScheduleConfig
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.optimiser import make_optimiser, make_schedule

pytestmark = pytest.mark.core
TIMING = Timing(total_steps=1000, steps_per_epoch=5, batch_size=10, examples=50)


def rates(**values):
    schedule = make_schedule(ScheduleConfig(**values), TIMING, peak=0.1)
    return lambda step: float(schedule(step))


def test_linear_after_a_hold_is_the_schedule_of_the_lenet_scripts():
    """1e-3·min(2 − e/100, 1) over 200 epochs, here with e = step / 5 and another peak."""
    rate = rates(kind="linear", hold="50%")
    for step in (0, 1, 499, 500, 501, 750, 999, 1000):
        assert rate(step) == pytest.approx(0.1 * min(2 - step / 5 / 100, 1), abs=1e-7)


def test_linear_without_hold():
    rate = rates(kind="linear")
    for step in (0, 10, 500, 1000):
        assert rate(step) == pytest.approx(0.1 * (1000 - step) / 1000, abs=1e-7)


def test_cosine_after_warm_up_and_hold():
    rate = rates(kind="cosine", warmup="100 steps", hold="20%")
    assert rate(0) == 0.0
    assert rate(50) == pytest.approx(0.05, rel=1e-5)
    assert rate(150) == pytest.approx(0.1, rel=1e-5)
    for step in (200, 400, 900, 1000):
        expected = 0.05 * (1 + np.cos(np.pi * (step - 200) / 800))
        assert rate(step) == pytest.approx(expected, abs=1e-6)


def test_steps_multiply_at_their_boundaries():
    rate = rates(kind="step", boundaries=("120 epochs", "90%"), warmup="10 steps")
    assert [rate(s) for s in (599, 601, 901)] == pytest.approx([0.1, 0.01, 0.001], rel=1e-5)


def test_constant():
    rate = rates(kind="constant")
    assert [rate(s) for s in (0, 500, 5000)] == pytest.approx([0.1] * 3)


def after_steps(config, gradients, start):
    """Parameters after some updates with given gradients."""
    optimiser = make_optimiser(config, lambda step: config.learning_rate)
    params = {"fc": {"kernel": jnp.asarray(start), "bias": jnp.asarray(start)}}
    state = optimiser.init(params)
    for g in gradients:
        updates, state = optimiser.update({"fc": {"kernel": g, "bias": g}}, state, params)
        params = optax.apply_updates(params, updates)
    return params["fc"]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_optimisers_against_their_definitions(name, weight_decay, rng):
    start = rng.normal(size=5).astype(np.float32)
    gradients = rng.normal(size=(4, 5)).astype(np.float32)
    config = OptimiserConfig(name=name, learning_rate=0.05, weight_decay=weight_decay, epsilon=1e-6)
    ours = after_steps(config, gradients, start)
    for leaf, decay in (("kernel", weight_decay), ("bias", 0.0)):
        p = start.astype(np.float64)
        m = v = np.zeros(5)
        for t, g in enumerate(gradients.astype(np.float64), start=1):
            g = g + (decay * p if name != "adamw" else 0)
            m = 0.9 * m + g * (1.0 if name == "sgd" else 0.1)
            v = 0.999 * v + 0.001 * g * g
            update = m
            if name != "sgd":
                update = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
            if name == "adamw":
                update = update + decay * p
            p = p - 0.05 * update
        close(ours[leaf], p, terms=50)


def test_clipping_bounds_the_global_norm():
    config = OptimiserConfig(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0)
    gradient = np.full(8, 100.0, np.float32)
    moved = after_steps(config, [gradient], np.zeros(8, np.float32))
    total = np.sqrt(sum(np.sum(np.square(x)) for x in moved.values()))
    assert total == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"learning_rate": 0.0}, "--optimiser.learning-rate is 0.0"),
        ({"momentum": 1.0}, "--optimiser.momentum is 1.0"),
        ({"label_smoothing": -0.1}, "--optimiser.label-smoothing is -0.1"),
        ({"weight_decay": -1.0}, "--optimiser.weight-decay is -1.0"),
    ],
)
def test_values_out_of_range_are_named(values, flag):
    with pytest.raises(UserError, match=flag):
        OptimiserConfig(**values)
