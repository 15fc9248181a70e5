"""ACT against the papers' worked values, the authors' loop in NumPy and finite differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.halting import act, act_start, act_step, active_units, combine_states
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

# Scores of units before the last of five, N, ρ, p and output of states 0, 1, 2, 3, 4.
GOLDEN = [
    ([0.999] * 4, 1, 2.0, [1, 0, 0, 0, 0], 0.0),
    ([0.01, 0.5, 0.6, 0.7], 3, 3.49, [0.01, 0.5, 0.49, 0, 0], 1.48),
    ([0.01] * 4, 5, 5.96, [0.01] * 4 + [0.96], 3.9),
]


def authors_loop(scores, *, eps=0.01):
    """The loop of the sheet, element by element: p, N, R at N, ρ."""
    scores = np.asarray(scores, np.float64)
    flat = scores.reshape(-1, scores.shape[-1])
    weights, units, remainders, costs = [], [], [], []
    for row in flat:
        c, r, done, rho, n, p = 0.0, 1.0, False, 1.0, 0, []
        for unit, h in enumerate(row, start=1):
            h = 1.0 if unit == len(row) else h
            c += h
            now = c >= 1 - eps
            h = 0.0 if now else h
            just = now and not done
            if just:
                remainders.append(r)
            p.append(r if just else h)
            rho += (r if just else 0.0) if now else 1.0
            n += not done
            r -= h
            done = now
        weights.append(p)
        units.append(n)
        costs.append(rho)
    leading = scores.shape[:-1]
    return (
        np.array(weights).reshape(scores.shape),
        np.array(units).reshape(leading),
        np.array(remainders).reshape(leading),
        np.array(costs).reshape(leading),
    )


def cost_and_all(scores):
    result = act(scores)
    return result.ponder_cost, result


COST_AND_SLOPE = jax.jit(jax.value_and_grad(cost_and_all, has_aux=True))


@functools.partial(jax.jit, static_argnames="eps")
def run_units(scores, states, *, eps=0.01):
    """Sequential form over float[..., L] scores and states."""
    state = act_start(states[0], scores.shape[:-1])
    for unit, x in enumerate(states):
        last = unit == len(states) - 1
        state = act_step(state, x, scores[..., unit], last=last, eps=eps)
    return state


@pytest.mark.parametrize("last", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("scores", "units", "cost", "weights"), [row[:4] for row in GOLDEN])
def test_worked_values(scores, units, cost, weights, last):
    """Whatever the last score is."""
    with jax.enable_x64(True):
        scores = jnp.array([*scores, last], jnp.float64)
        (_, result), gradient = COST_AND_SLOPE(scores)
        assert result.num_units.dtype == jnp.int32
        assert int(result.num_units) == units
        close(result.ponder_cost, cost, dtype=jnp.float64)
        close(result.weights, weights, dtype=jnp.float64)
        close(result.remainder, cost - units, dtype=jnp.float64, terms=9)
        np.testing.assert_array_equal(gradient, [-1.0] * (units - 1) + [0.0] * (6 - units))


@pytest.mark.parametrize(("scores", "units", "cost", "_", "output"), GOLDEN)
def test_worked_values_one_unit_at_a_time(scores, units, cost, _, output):
    states = [jnp.full((1, 2), float(i)) for i in range(5)]
    scores = jnp.array([[*scores, 0.5]])
    close(combine_states(act(scores).weights, states), [[output] * 2])
    end = run_units(scores, states)
    assert end.num_units.tolist() == [units]
    close(end.ponder_cost, [cost])
    close(end.output, [[output] * 2])
    assert end.halted.all()


def test_two_positions_of_the_authors_test():
    scores = jnp.array([[0.9, 0.5, 0.0], [0.1, 0.1, 0.0]])
    states = [jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0])]
    result = act(scores)
    close(result.ponder_cost, [2.1, 3.8])
    np.testing.assert_array_equal(result.num_units, [2, 3])
    close(result.weights, [[0.9, 0.1, 0], [0.1, 0.1, 0.8]])
    close(combine_states(result.weights, states), [1.2, 5.4])
    np.testing.assert_array_equal(active_units(scores), [[1, 1, 0], [1, 1, 1]])


def test_residual_units_copy_halted_positions():
    """Residual 1 from 0: states 1, 2, 2 and 1, 2, 3, outputs 1.1 and 2.7."""
    scores = jnp.array([[0.9, 0.5], [0.1, 0.1]])
    x = jnp.zeros(2)
    state, states = act_start(x, (2,)), []
    for unit in range(3):
        x = x + jnp.where(state.halted, 0.0, 1.0)
        states.append(x.tolist())
        state = act_step(state, x, scores[:, min(unit, 1)], last=unit == 2)
    assert states == [[1, 1], [2, 2], [2, 3]]
    close(state.output, [1.1, 2.7])


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 1), (4, 5), (2, 5, 3, 6), (0, 4)])
@pytest.mark.parametrize("eps", [0.01, 0.3])
def test_both_forms_equal_the_authors_loop(shape, eps, rng):
    """Any leading shape, L = 1 and an empty batch included."""
    scores = rng.uniform(0, 0.6, shape)
    states = rng.normal(size=(shape[-1], *shape[:-1], 2))
    weights, units, remainders, costs = authors_loop(scores, eps=eps)
    with jax.enable_x64(True):
        result = jax.jit(functools.partial(act, eps=eps))(jnp.asarray(scores))
        end = run_units(jnp.asarray(scores), list(jnp.asarray(states)), eps=eps)
        expected = np.einsum("...l,l...c->...c", weights, states)
        for actual in (result, end):
            np.testing.assert_array_equal(actual.num_units, units)
            close(actual.remainder, remainders, dtype=jnp.float64, terms=9)
            close(actual.ponder_cost, costs, dtype=jnp.float64)
        close(result.weights, weights, dtype=jnp.float64, terms=9)
        close(end.output, expected, dtype=jnp.float64, terms=9)
        combined = jax.jit(combine_states)(result.weights, list(jnp.asarray(states)))
        close(combined, expected, dtype=jnp.float64, terms=9)
        running = np.arange(1, shape[-1] + 1) <= units[..., None]
        np.testing.assert_array_equal(active_units(jnp.asarray(scores), eps=eps), running)


def test_both_forms_round_alike_at_the_threshold(rng):
    """Scores in hundredths, whose sums are often 0.99 up to rounding."""
    scores = jnp.asarray(rng.integers(0, 34, (4000, 8)) / 100, jnp.float32)
    sums = np.cumsum(np.asarray(scores, np.float64), -1)
    assert (np.abs(sums - 0.99) < 1e-6).any(-1).mean() > 0.02
    end = run_units(scores, [jnp.zeros((4000,))] * 8)
    np.testing.assert_array_equal(act(scores).num_units, end.num_units)
    np.testing.assert_array_equal(jax.jit(act)(scores).num_units, end.num_units)


def test_a_sum_equal_to_the_threshold_halts():
    """Binary fractions: 0.25 + 0.5 = 1 − 0.25 exactly."""
    assert int(act(jnp.array([0.25, 0.5, 0.1, 0.0]), eps=0.25).num_units) == 2


def test_gradients_of_weights_equal_finite_differences(rng):
    """Away from the jumps, N being constant there; the last score has none."""
    scores = np.array([[0.2, 0.3, 0.4, 0.35, 0.5], [0.1, 0.2, 0.1, 0.2, 0.4]])
    states = list(rng.normal(size=(5, 2, 3)))
    direction = rng.normal(size=(2, 3))
    with jax.enable_x64(True):

        def parallel(h):
            result = act(h)
            output = combine_states(result.weights, [jnp.asarray(s) for s in states])
            return jnp.sum(output * direction) + jnp.sum(result.ponder_cost**2)

        def sequential(h):
            end = run_units(h, [jnp.asarray(s) for s in states])
            return jnp.sum(end.output * direction) + jnp.sum(end.ponder_cost**2)

        gradient = np.asarray(jax.jit(jax.grad(parallel))(jnp.asarray(scores)))
        value = jax.jit(parallel)
        close(
            jax.jit(jax.grad(sequential))(jnp.asarray(scores)),
            gradient,
            dtype=jnp.float64,
            terms=25,
        )
        step = 1e-6
        for index in np.ndindex(scores.shape):
            shift = np.zeros_like(scores)
            shift[index] = step
            slope = (value(scores + shift) - value(scores - shift)) / (2 * step)
            assert gradient[index] == pytest.approx(float(slope), abs=1e-8)
        assert (gradient[:, -1] == 0).all()
        assert (gradient[0, 3:] == 0).all()
        assert (gradient[1, :-1] != 0).all()


def test_cost_jumps_where_the_number_of_units_changes():
    """h² = h³ = h⁴ = ⅓: the cost falls with slope −1 and jumps at h¹ = 0.99 − ⅔."""

    def cost(first):
        return float(COST_AND_SLOPE(jnp.array([first, 1 / 3, 1 / 3, 1 / 3, 1.0]))[0][0])

    edge = 0.99 - 2 / 3
    assert cost(0.2) - cost(0.3) == pytest.approx(0.1, abs=1e-5)
    assert cost(edge - 1e-4) == pytest.approx(4 + 1 - edge - 2 / 3, abs=1e-3)
    assert cost(edge + 1e-4) == pytest.approx(3 + 1 - edge - 1 / 3, abs=1e-3)


def test_without_halting_it_is_the_residual_network():
    result = act(jnp.zeros((2, 6)))
    np.testing.assert_array_equal(result.weights, [[0, 0, 0, 0, 0, 1]] * 2)
    np.testing.assert_array_equal(result.ponder_cost, [7, 7])


def test_one_unit_needs_no_score():
    result = act(jnp.array([[0.2], [jnp.nan]]))
    np.testing.assert_array_equal(result.weights, [[1], [1]])
    np.testing.assert_array_equal(result.ponder_cost, [2, 2])


def test_scores_after_the_last_unit_do_not_matter():
    """Heads at positions that do not run give anything, NaN included."""
    scores = jnp.array([0.6, 0.5, jnp.nan, -3.0, 0.0])
    (_, result), gradient = COST_AND_SLOPE(scores)
    close(result.weights, [0.6, 0.4, 0, 0, 0])
    assert int(result.num_units) == 2
    np.testing.assert_array_equal(gradient, [-1, 0, 0, 0, 0])
    end = run_units(scores[None], [jnp.full((1,), float(i)) for i in range(5)])
    close(end.output, [0.4])
    assert end.num_units.tolist() == [2]


def test_jit_and_vmap_equal_eager(rng):
    scores = jnp.asarray(rng.uniform(0, 0.5, (3, 4, 6)), jnp.float32)
    eager = act(scores)
    for other in (jax.jit(act)(scores), jax.jit(jax.vmap(jax.vmap(act)))(scores)):
        np.testing.assert_array_equal(other.num_units, eager.num_units)
        close(other.weights, eager.weights)
        close(other.ponder_cost, eager.ponder_cost)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_sums_are_kept_in_single_precision(dtype):
    scores = jnp.full((120,), 0.0101, dtype)
    result = jax.jit(act)(scores)
    assert result.ponder_cost.dtype == result.weights.dtype == jnp.float32
    units = int(np.ceil(0.99 / float(scores[0])))
    assert int(result.num_units) == units
    total = np.zeros((), dtype)
    for _ in range(units - 1):
        total = (total + np.asarray(scores[0])).astype(dtype)
    in_that_dtype = abs(float(total) - (units - 1) * float(scores[0]))
    assert (in_that_dtype > float(scores[0]) / 4) == (dtype != jnp.float32)


@pytest.mark.parametrize("eps", [0, 1, -0.1, 1.5, float("nan"), "small", None])
def test_bad_epsilon_is_one_line(eps):
    scores = jnp.full((2, 3), 0.5)
    state = act_start(jnp.zeros((2,)), (2,))
    for call in (
        lambda: act(scores, eps=eps),
        lambda: act_step(state, jnp.zeros((2,)), scores[:, 0], eps=eps),
    ):
        with pytest.raises(UserError, match=r"^eps is .*; expected a number in \(0, 1\)$"):
            call()


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (jnp.float32(0.5), r"halting_probs has shape \(\)"),
        (jnp.zeros((3, 0)), r"halting_probs has shape \(3, 0\)"),
        (jnp.zeros((3, 2), jnp.int32), "halting_probs has dtype int32"),
    ],
)
def test_bad_scores_are_one_line(scores, message):
    with pytest.raises(UserError, match=message):
        act(scores)


def test_shapes_that_do_not_fit_are_named():
    state = act_start(jnp.zeros((2, 3)), (2,))
    with pytest.raises(UserError, match=r"expected \(2,\) and \(2, 3\)"):
        act_step(state, jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    with pytest.raises(UserError, match="leading axes of states"):
        act_start(jnp.zeros((2, 3)), (3,))
    with pytest.raises(UserError, match="states has 1 entries; expected 3"):
        combine_states(jnp.zeros((2, 3)), [jnp.zeros((2,))])
