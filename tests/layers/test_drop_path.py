"""Draws of stochastic depth and drop-path: exact forms, and frequencies over many keys."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tolerances import close

from adaptive_nets.layers.drop_path import (
    draw_paths,
    global_drop_path,
    linear_survival,
    local_drop_path,
    mean_of_live,
    stochastic_depth,
    stochastic_depth_branch,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
DRAWS = 20_000


def assert_frequency(successes, trials, probability):
    """The two-sided binomial test does not reject at one in a million."""
    assert stats.binomtest(int(successes), int(trials), probability).pvalue > 1e-6


def test_linear_rule():
    survival = linear_survival(54, 0.5)
    assert survival[0] == 1 - 0.5 / 54
    assert survival[26] == 0.75
    assert survival[-1] == 0.5
    assert sum(survival) == pytest.approx((3 * 54 - 1) / 4) == 40.25
    assert linear_survival(3, 1.0) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("last", [0.0, -0.1, 1.5, float("nan")])
def test_linear_rule_rejects_what_is_no_probability(last):
    with pytest.raises(UserError, match="expected a fraction"):
        linear_survival(5, last)


def test_one_draw_keeps_or_drops_the_whole_batch(key):
    residual = jnp.arange(1.0, 25.0).reshape(4, 3, 2, 1)

    def draw(key):
        return stochastic_depth(key, residual, survival=0.7, train=True)

    outputs = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(key, DRAWS)))
    kept = outputs[:, 0, 0, 0, 0] == 1
    np.testing.assert_array_equal(
        outputs[kept], np.broadcast_to(residual, (kept.sum(), 4, 3, 2, 1))
    )
    assert not outputs[~kept].any()
    assert_frequency(kept.sum(), DRAWS, 0.7)


def test_examples_may_be_drawn_apart(key):
    residual = jnp.ones((DRAWS, 2, 3))
    kept = stochastic_depth(key, residual, survival=0.2, train=True, per_example=True)
    assert np.all(np.ptp(kept, axis=(1, 2)) == 0)
    assert_frequency(kept[:, 0, 0].sum(), DRAWS, 0.2)


def test_at_test_the_residual_is_scaled():
    residual = jnp.asarray([[1.0, -2.0]], jnp.bfloat16)
    output = stochastic_depth(None, residual, survival=0.25, train=False)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_array_equal(output, [[0.25, -0.5]])
    with pytest.raises(ValueError, match="key is None"):
        stochastic_depth(None, residual, survival=0.25, train=True)


class Unit(nn.Module):
    """A branch with a kernel and statistics, kept with a given probability."""

    survival: float
    skip: bool | None = None

    @nn.compact
    def __call__(self, x, train=False):
        def branch(unit, x):
            x = nn.Conv(3, (1, 1), name="conv")(x)
            return nn.BatchNorm(use_running_average=not train, name="bn")(x)

        return stochastic_depth_branch(
            self, branch, x, x, survival=self.survival, train=train, skip=self.skip
        )


@pytest.fixture(scope="module", params=[True, False], ids=["skipped", "discarded"])
def unit(request):
    x = jax.random.normal(jax.random.key(3), (2, 4, 4, 3))
    model = Unit(0.5, request.param)
    variables = model.init(jax.random.key(0), x)

    @jax.jit
    def step(params, key):
        def loss(params):
            y, mutated = model.apply(
                {**variables, "params": params},
                x,
                train=True,
                rngs={"drop_path": key},
                mutable=["batch_stats"],
            )
            return jnp.sum(y**2), (y, mutated["batch_stats"])

        return jax.grad(loss, has_aux=True)(params)

    return model, variables, x, step


def test_a_dropped_branch_has_no_output_no_gradient_and_keeps_its_statistics(unit):
    _, variables, _, step = unit
    seen = set()
    for seed in range(12):
        gradient, (y, statistics) = step(variables["params"], jax.random.key(seed))
        kept = bool(np.any(y))
        seen.add(kept)
        moved = not np.array_equal(statistics["bn"]["var"], variables["batch_stats"]["bn"]["var"])
        assert moved == kept
        assert bool(np.any(gradient["conv"]["kernel"])) == kept
        assert np.all(np.isfinite(gradient["conv"]["kernel"]))
    assert seen == {False, True}


def test_a_dropped_branch_is_not_computed_where_it_is_skipped(unit):
    """The convolution is inside a conditional, in the forward and in the backward pass."""
    model, variables, _, step = unit
    jaxpr = jax.make_jaxpr(step)(variables["params"], jax.random.key(0))

    def convolutions(jaxpr, inside):
        found = []
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name == "conv_general_dilated":
                found.append(inside)
            for value in jax.tree.leaves(
                list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
            ):
                inner = getattr(value, "jaxpr", value)
                if hasattr(inner, "eqns"):
                    found += convolutions(inner, inside or name == "cond")
        return found

    found = convolutions(jaxpr.jaxpr, False)
    assert len(found) >= 2
    assert all(found) if model.skip else not any(found)


def test_at_test_the_branch_is_computed_and_scaled(unit):
    model, variables, x, _ = unit
    whole: Any = Unit(1.0).apply(variables, x)
    assert np.any(whole)
    close(model.apply(variables, x), 0.5 * np.asarray(whole))


def test_branches_survive_as_often_as_they_should(unit, key):
    _, variables, x, _ = unit
    model = Unit(0.3, unit[0].skip)

    def kept(key):
        y: Any = model.apply(
            variables, x, train=True, rngs={"drop_path": key}, mutable=["batch_stats"]
        )[0]
        return jnp.any(y != 0)

    count = jnp.sum(jax.jit(lambda keys: jax.lax.map(kept, keys))(jax.random.split(key, 5000)))
    assert_frequency(count, 5000, 0.3)


@pytest.mark.parametrize(("inputs", "rate"), [(1, 0.9), (2, 0.15), (3, 0.15), (3, 0.5)])
def test_local_draws_are_independent_but_leave_one(key, inputs, rate):
    draw = jax.jit(lambda key: local_drop_path(key, inputs, drop_rate=rate, num_draws=DRAWS))
    live = np.asarray(draw(key))
    assert live.shape == (DRAWS, inputs)
    assert live.any(axis=1).all()
    patterns = live @ (2 ** np.arange(inputs))
    counts = np.bincount(patterns, minlength=2**inputs)
    for pattern in range(1, 2**inputs):
        ones = pattern.bit_count()
        expected = (1 - rate) ** ones * rate ** (inputs - ones)
        if ones == 1:  # where all would have been dropped, any one is kept
            expected += rate**inputs / inputs
        assert_frequency(counts[pattern], DRAWS, min(expected, 1.0))


def test_global_draws_pick_the_column_where_it_is():
    column = jnp.asarray([0, 1, 2])
    live, is_among = global_drop_path(column, (1, 2))
    np.testing.assert_array_equal(live, [[False, False], [True, False], [False, True]])
    np.testing.assert_array_equal(is_among, [False, True, True])


def test_draws_mix_local_and_global(key):
    """With the paper's numbers: half global, any of three columns, else each input on its own."""

    @jax.jit
    def sample(key):
        draw = draw_paths(key, 3, drop_rate=0.15, global_share=0.5, num_draws=DRAWS)
        return draw, [draw.live(join, (0, 1, 2)) for join in (3, 7)]

    draw, joins = sample(key)
    is_global = np.asarray(draw.is_global)
    assert_frequency(is_global.sum(), DRAWS, 0.5)
    columns = np.asarray(draw.column)[is_global]
    for column in range(3):
        assert_frequency((columns == column).sum(), len(columns), 1 / 3)
    joins = [np.asarray(join) for join in joins]
    for live in joins:
        np.testing.assert_array_equal(live[is_global], np.eye(3, dtype=bool)[columns])
        assert_frequency(live[~is_global].all(axis=1).sum(), (~is_global).sum(), 0.85**3)
    # Joins draw apart from each other: both whole with the square of the probability.
    both = (joins[0].all(axis=1) & joins[1].all(axis=1))[~is_global]
    assert_frequency(both.sum(), len(both), 0.85**6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_only_local_and_only_global(key, share):

    @jax.jit
    def draw(key):
        paths = draw_paths(key, 4, drop_rate=0.0, global_share=share, num_draws=50)
        return paths.live(0, (0, 1, 2, 3))

    live = np.asarray(draw(key))
    assert np.all(live.sum(axis=1) == (1 if share else 4))


@pytest.mark.parametrize("draws", [1, 5])
def test_mean_is_over_the_live_inputs(rng, draws):
    inputs = rng.normal(size=(3, 5, 2, 3, 4)).astype(np.float32)
    live = rng.random((draws, 3)) < 0.5
    live[:, 1] = True
    expected = np.stack(
        [np.mean(inputs[live[i % draws], i].astype(np.float64), axis=0) for i in range(5)]
    )
    close(mean_of_live(list(jnp.asarray(inputs)), jnp.asarray(live)), expected, terms=3)


def test_a_dropped_input_may_be_infinite():
    inputs = [jnp.ones((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), jnp.inf)]
    assert mean_of_live(inputs, jnp.asarray([[True, False]])).item() == 1
