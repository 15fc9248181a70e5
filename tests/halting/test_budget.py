"""Shifts of halting logits that meet budgets, against costs computed in Python."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets import halting
from adaptive_nets.halting import (
    BudgetCalibration,
    budget_shift,
    calibrate_shifts,
    check_budget,
    image_dither,
    load_calibration,
    save_calibration,
    shift_logits,
)

pytestmark = pytest.mark.core
TABLE = BudgetCalibration(
    np.array([9.0, 1.0, 0.5, -9.0], np.float32),  # pyright: ignore[reportArgumentType]
    np.array([2e6, 4e6, 6e6, 8e6], np.float32),  # pyright: ignore[reportArgumentType]
    np.float32(10e6),  # pyright: ignore[reportArgumentType]
)


@pytest.mark.parametrize("budget", [2e6, 2.5e6, 4e6, 5.9e6, 8e6, 0.2, 0.45, 0.8])
def test_the_mean_over_images_is_the_budget(budget):
    dither = (np.arange(1000) + 0.5) / 1000
    shifts = np.asarray(budget_shift(TABLE, budget, dither))
    costs = dict(zip(TABLE.shifts.tolist(), TABLE.flops.tolist(), strict=True))
    mean = np.mean([costs[s] for s in shifts.tolist()])
    assert mean == pytest.approx(budget if budget > 2 else budget * 10e6, rel=1e-3)
    # Only the two measured shifts around the budget occur.
    assert len(set(shifts.tolist())) <= 2


def test_a_larger_budget_never_has_a_larger_shift():
    budgets = np.linspace(0.15, 0.9, 61, dtype=np.float32)
    for dither in (0.0, 0.3, 0.999):
        assert np.all(np.diff(budget_shift(TABLE, budgets, dither)) <= 0)
    compiled = jax.jit(budget_shift)
    for budget in (0.1, 5e6, 1e9):  # outside of the range: the nearest end
        assert compiled(TABLE, budget) == budget_shift(TABLE, budget)
    assert budget_shift(TABLE, 0.1) == 9
    assert budget_shift(TABLE, 1e9) == -9
    assert budget_shift(TABLE, np.zeros(0), np.zeros(0)).shape == (0,)
    single = BudgetCalibration(*(np.asarray(a) for a in (TABLE.shifts[:1], TABLE.flops[:1], 1e7)))  # pyright: ignore
    assert budget_shift(single, 0.2) == 9


def test_act_costs_fall_with_the_shift_and_calibrate(rng):
    """Sums of scores in Python give the costs; the table has exactly these."""
    logits = rng.normal(-1, 1, (50, 5))

    def measure(shift):
        units = []
        for row in logits:
            total, n = 0.0, 0
            for value in row:
                n += 1
                total += 1 / (1 + np.exp(np.clip(-value - shift, -700, 700)))
                if total >= 0.99:
                    break
            units.append(n)
        return 100 + 10 * np.mean(units)

    table = calibrate_shifts(measure, plain_flops=150.0)
    assert table.flops[0] == 110
    assert table.flops[-1] == 150
    assert np.all(np.diff(table.flops) > 0)
    assert np.all(np.diff(table.shifts) < 0)
    assert np.diff(table.flops).max() <= 1.5
    np.testing.assert_allclose(table.flops, [measure(float(s)) for s in table.shifts], rtol=1e-6)
    shifted = shift_logits(logits.astype(np.float32), table.shifts[7])
    found = halting.act(jax.nn.sigmoid(shifted)).num_units
    assert 100 + 10 * np.mean(found) == pytest.approx(float(table.flops[7]), rel=1e-6)


def test_a_step_of_costs_is_bracketed_tightly():
    calls = []

    def measure(shift):
        calls.append(shift)
        return 50.0 if shift > 0.7 else 90.0

    table = calibrate_shifts(measure, plain_flops=90.0)
    np.testing.assert_array_equal(table.flops, [50, 90])
    assert 0.69 < table.shifts[1] <= 0.7 < table.shifts[0] < 0.71
    assert len(calls) < 40
    flat = calibrate_shifts(lambda shift: 7.0, plain_flops=7.0)
    assert flat.flops.tolist() == [7.0]
    # Noise: what does not increase is left out.
    noisy = calibrate_shifts(
        lambda s: 60 - 10 * np.tanh(s) + (s > 0) * np.sin(1e4 * s), plain_flops=70
    )
    assert np.all(np.diff(noisy.flops) > 0)


def test_dither_is_uniform_and_of_the_image_alone(rng):
    images = rng.standard_normal((2000, 4, 4, 3)).astype(np.float32)
    dither = np.asarray(jax.jit(image_dither)(images))
    counts = np.histogram(dither, 10, (0, 1))[0]
    assert counts.sum() == 2000
    assert np.sum((counts - 200) ** 2 / 200) < 27.9  # chi-squared, p = 0.001
    np.testing.assert_array_equal(dither[5:9], image_dither(images[5:9]))
    permuted = image_dither(images[:, ::-1])
    assert np.mean(permuted == dither) < 0.01
    assert image_dither(images[:0]).shape == (0,)
    assert image_dither(np.zeros((2, 3), np.uint8)).shape == (2,)


def test_shifts_of_logits():
    logits = np.zeros((2, 3, 3), np.float32)
    assert shift_logits(logits, None) is logits
    np.testing.assert_array_equal(shift_logits(logits, 2.0), logits + 2)
    both = shift_logits(logits, np.array([1.0, -1.0]))
    np.testing.assert_array_equal(both[:, 0, 0], [1, -1])
    assert shift_logits(jnp.zeros((2,), jnp.bfloat16), 1.0).dtype == jnp.bfloat16


def test_files(tmp_path, complains):
    path = tmp_path / "budget.json"
    save_calibration(path, TABLE)
    found = load_calibration(path)
    for ours, theirs in zip(found, TABLE, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    good = json.loads(path.read_text())
    for name, value in {
        "shifts": [1.0], "flops": [4.0, 3.0, 2.0, 1.0], "plain_flops": -1, "more": None
    }.items():  # fmt: skip
        path.write_text(json.dumps({**good, name: value}))
        if name != "more":
            complains(lambda: load_calibration(path), path, "damaged", "calibrate")
    path.write_text(json.dumps({**good, "shifts": ["a"] * 4}))
    complains(lambda: load_calibration(path), path, "damaged")
    path.write_text("{}")
    complains(lambda: load_calibration(path), path, "no entry 'shifts'")
    complains(lambda: load_calibration(tmp_path / "absent"), "absent", "calibrate")


def test_mistakes(complains):
    check_budget(TABLE, 0.2)
    check_budget(TABLE, [2e6, 8e6], images=2)
    complains(
        lambda: check_budget(TABLE, 0.1),
        *("budget is 0.1, 1000000 FLOPs", "from 2000000 FLOPs, a share of 0.2", "to 8000000"),
    )
    complains(lambda: check_budget(TABLE, 9e6), "budget is 9000000 FLOPs", "share of 0.8")
    complains(lambda: check_budget(TABLE, [0.3, 0.9]), "budget is 0.9")
    complains(lambda: check_budget(TABLE, float("nan")), "budget is nan")
    complains(lambda: check_budget(TABLE, "much"), "budget is 'much'")
    complains(lambda: check_budget(TABLE, [0.3, 0.4], images=3), "shape (2,)", "(3,)")
    complains(lambda: check_budget(TABLE, np.ones((2, 2))), "shape (2, 2)")
    complains(lambda: shift_logits(np.zeros((2, 3)), np.zeros(3)), "halting_shift", "(3,)", "(2,)")
    for options in ({"resolution": 0.0}, {"evaluations": 0}, {"plain_flops": -1.0}):
        (name,) = options
        complains(
            lambda o=options: calibrate_shifts(lambda s: 1.0, **({"plain_flops": 1.0} | o)), name
        )
    complains(lambda: calibrate_shifts(lambda s: float("nan"), plain_flops=1.0), "cost", "nan")
