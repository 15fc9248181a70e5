"""Blocks of a user's units against the definition in NumPy, position by position."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy_layers import conv
from scipy.ndimage import binary_dilation
from tolerances import close

from adaptive_nets.analysis import unit_costs
from adaptive_nets.halting import computation_penalty
from adaptive_nets.models import AdaptiveBlock
from adaptive_nets.models.adaptive.blocks import Halting
from adaptive_nets.models.adaptive.unit_costs import UnitCost

pytestmark = pytest.mark.core
HEIGHT, WIDTH = 6, 4
X = np.random.default_rng(0).standard_normal((3, HEIGHT, WIDTH, 3)).astype(np.float32)


class Unit(nn.Module):
    """A residual unit that changes channels at most, with a `training` of its own name."""

    features: int = 3
    strides: int = 1

    @nn.compact
    def __call__(self, x, training: bool = False):
        y = nn.relu(nn.Conv(4, (3, 3), self.strides, padding=1, name="a")(x))
        y = nn.Dropout(0.5, deterministic=not training)(y)
        y = nn.Conv(self.features, (3, 3), padding=1, name="b")(y)
        return y if y.shape != x.shape else x + 0.5 * y


def block(rule, units=3, **options) -> AdaptiveBlock:
    halting = Halting(rule, head_norm=False, **options)
    return AdaptiveBlock([Unit() for _ in range(units)], halting, head_bias=-0.7)


@functools.cache
def initial(module):
    variables = jax.jit(module.init)(jax.random.key(1), X)
    grow = lambda path, leaf: 3 * leaf if "local" in jax.tree_util.keystr(path) else leaf  # noqa: E731
    return jax.tree_util.tree_map_with_path(grow, variables)


def numpy_unit(params, x):
    y = np.maximum(conv(x, params["a"]["kernel"], params["a"]["bias"], pad=1), 0)
    return x + 0.5 * conv(y, params["b"]["kernel"], params["b"]["bias"], pad=1)


def numpy_logits(params, x, rule):
    if rule == "act":
        dense = params["dense_global"]
        logits = x.mean((1, 2)) @ dense["kernel"][:, 0] + dense["bias"][0]
        return np.broadcast_to(logits[:, None, None], x.shape[:3])
    overall = x.mean((1, 2)) @ params["dense_global"]["kernel"][:, 0] + params["bias"]
    return conv(x, params["conv_local"]["kernel"], pad=1)[..., 0] + overall[:, None, None]


def oracle(variables, x, rule, shift=0.0):
    """Output, number of units, ponder cost of every position of a block of ACT, SACT or PACT."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    count = len([name for name in params if name.startswith("units_")])
    x = np.asarray(x, np.float64)
    running = np.ones(x.shape[:3], bool)
    left, total = np.ones(x.shape[:3]), np.zeros(x.shape[:3])
    units, output = np.zeros(x.shape[:3], int), np.zeros(x.shape)
    for i in range(count):
        y = numpy_unit(params[f"units_{i}"], x)
        x = np.where(running[..., None], y, x)
        units += running
        probs = np.ones(x.shape[:3])
        if i < count - 1:
            logits = numpy_logits(params[f"unit_{i}_{rule}_head"], x, rule) + shift
            probs = 1 / (1 + np.exp(-logits))
        total += probs
        stops = probs > 0.5 if rule == "pact" else total >= 0.99
        stops |= i == count - 1
        weight = np.where(running, np.where(stops, left, probs), 0)
        output += weight[..., None] * x
        left = np.where(running & ~stops, left - probs, left)
        running &= ~stops
    return (x if rule == "pact" else output), units, units + left


@pytest.mark.parametrize(
    ("rule", "shift"),
    [
        ("act", np.array([0.8, -3.0, 9.0])),  # one per image
        ("sact", 0.5),
        pytest.param("sact", -50.0, marks=pytest.mark.slow),
        pytest.param("pact", 0.7, marks=pytest.mark.slow),
        ("pact", np.array([50.0, 0.7, 0.6])),
    ],
)
def test_equals_the_definition(rule, shift):
    module = block(rule)
    variables = initial(module)
    found = jax.jit(module.apply)(variables, X, halting_shift=shift)
    by_image = np.broadcast_to(shift, 3)[:, None, None]
    state, units, cost = oracle(variables, X, rule, by_image)
    close(found.state, state, terms=1000)
    assert found.flops is None
    numbers = found.trace.broadcast_to_map(found.num_units)
    assert np.array_equal(numbers, units)
    assert (len(np.unique(units)) > 1) == np.all(by_image > -10)
    if rule != "pact":
        close(found.trace.broadcast_to_map(found.ponder_cost), cost, terms=1000)
    skipping = jax.jit(functools.partial(module.apply, execution="skipping"))
    close(skipping(variables, X, halting_shift=shift).state, state, terms=1000)


def test_probabilistic_blocks_train_relaxed_and_are_differentiable():
    module = block("pact", temperature=0.5)
    variables = initial(module)

    @jax.jit
    def loss(params, key):
        rngs = {"halting": key, "dropout": key}
        output = module.apply({"params": params}, X, train=True, rngs=rngs)
        penalty = computation_penalty([output.ponder_cost], 0.1)
        return jnp.mean(output.state**2) + jnp.mean(penalty), output.num_units

    (_, units), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"], jax.random.key(2)
    )
    assert np.all(units == 3)  # relaxed blocks run every unit
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(gradient))
    rngs = {"halting": jax.random.key(3)}
    discrete = functools.partial(module.apply, mode="discrete")
    sampled = jax.jit(discrete)(variables, X, rngs=rngs)
    assert np.all(sampled.trace.log_prob < 0)


SEEN: list[int] = []


class Counted(nn.Module):
    """A unit that calls back each time it runs."""

    index: int

    @nn.compact
    def __call__(self, x):
        jax.debug.callback(lambda i=self.index: SEEN.append(i))
        return x + nn.Conv(3, (1, 1))(x)


@pytest.mark.parametrize("rule", ["act", pytest.param("sact", marks=pytest.mark.slow)])
def test_skipping_leaves_out_units_that_no_image_needs(rule):
    module = AdaptiveBlock([Counted(i) for i in range(4)], rule, execution="skipping")
    variables, apply = jax.jit(module.init)(jax.random.key(0), X), jax.jit(module.apply)
    for shift, expected in (([20.0] * 3, [0]), ([20.0, -30.0, 20.0], [0, 1, 2, 3])):
        jax.effects_barrier()
        SEEN.clear()
        jax.block_until_ready(apply(variables, X, halting_shift=np.array(shift, np.float32)))
        jax.effects_barrier()
        assert sorted(SEEN) == expected


def test_flops_are_counted_by_image():
    shape = (HEIGHT, WIDTH, 3)
    costs = unit_costs([Unit() for _ in range(3)], shape)
    area, conv_macs = HEIGHT * WIDTH, HEIGHT * WIDTH * 9 * 3 * 4
    assert costs == (UnitCost((((1, 1), 2 * conv_macs), ((0, 0), 2 * conv_macs))),) * 3
    module = block("sact").clone(unit_costs=costs)
    variables = initial(block("sact"))
    found = jax.jit(module.apply)(variables, X, halting_shift=0.5)
    units = np.asarray(found.num_units)
    for n in range(len(X)):
        expected = 4 * conv_macs + 2 * (2 * 9 * 3) * 0
        for i in (1, 2):
            active = units[n] > i
            wider = binary_dilation(active, np.ones((3, 3)))
            expected += 2 * conv_macs * (active.sum() + wider.sum()) / area
        for i in (0, 1):  # heads
            expected += 2 * 3 + 2 * 9 * 3 * (units[n] > i).sum()
        assert float(found.flops[n]) == pytest.approx(expected, rel=1e-6)
    # Numbers, of an image as a whole.
    whole = block("act").clone(unit_costs=(100, 10, 1))
    found = jax.jit(whole.apply)(initial(block("act")), X, halting_shift=0.8)
    heads = 2 * 3 * np.minimum(found.num_units, 2)
    expected = np.array([0, 100, 110, 111])[found.num_units] + heads
    np.testing.assert_allclose(found.flops, expected)


class Gated(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        gate = nn.sigmoid(nn.Dense(x.shape[-1])(x.mean((1, 2))))
        return x + nn.Conv(x.shape[-1], (1, 3))(x) * gate[:, None, None]


def test_costs_of_units_of_other_kinds():
    first, gated = unit_costs([Unit(5, strides=2), Gated()], (HEIGHT, WIDTH, 3))
    assert first.total == 2 * 6 * 9 * (3 * 4 + 4 * 5)
    assert gated == UnitCost((((0, 0), 2 * 6 * 3 * 25),), per_image=2 * 25)


def test_inside_of_other_modules():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = nn.Conv(3, (3, 3), name="stem")(x)
            units = [Unit(4, strides=2), *[Unit(4) for _ in range(2)]]
            output = AdaptiveBlock(units, "act", name="block")(x, train)
            return nn.Dense(2)(output.state.mean((1, 2))), output.ponder_cost

    net = Net()
    logits, cost = jax.jit(lambda: net.init_with_output(jax.random.key(0), X)[0])()
    assert logits.shape == (3, 2)
    assert cost.shape == (3,)


@pytest.mark.slow
def test_inside_of_nnx_modules():
    with jax.numpy_rank_promotion("allow"):
        bridged = nnx.bridge.ToNNX(block("sact"), rngs=nnx.Rngs(0))
        bridged.lazy_init(X)
        assert bridged(X).state.shape == X.shape


class Strided(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(5, (3, 3), strides=2)(x)


def test_mistakes(complains):
    def call(module, **options):
        return lambda: module.init_with_output(jax.random.key(0), X, **options)

    complains(
        call(AdaptiveBlock([Unit(), Unit(), Strided()], "act")),
        *("units[2] (Strided)", "[3, 6, 4, 3]", "[3, 3, 2, 5]", "only units[0]"),
    )
    complains(call(AdaptiveBlock([], "act")), "units is empty")
    complains(call(AdaptiveBlock([Unit()], "sactt")), "halting is 'sactt'", "'sact'?")  # pyright: ignore
    complains(call(AdaptiveBlock([lambda x: x.mean((1, 2))], "act")), "units[0]", "[N, H, W, C]")
    costs = {"unit_costs": (1, 2)}
    complains(call(AdaptiveBlock([Unit()], "act", **costs)), "unit_costs has 2", "expected 1")
    costs = {"unit_costs": (-1,)}
    complains(call(AdaptiveBlock([Unit()], "act", **costs)), "unit_costs[0] is -1")
    complains(lambda: unit_costs([len], X.shape[1:]), "units[0]", "linen module")
    pact = block("pact")
    values = initial(pact)
    complains(lambda: pact.apply(values, X, mode="relaxed"), "relaxed", "rngs")
    rngs = {"halting": jax.random.key(0)}
    complains(
        lambda: pact.apply(values, X, mode="relaxed", execution="skipping", rngs=rngs), "skipping"
    )
    complains(lambda: pact.apply(values, X, mode="hard"), "mode is 'hard'")
    complains(lambda: block("act").apply(values, X, mode="discrete"), "no modes")
    complains(lambda: block("sact").apply(values, X), "'pact'", "'sact'")
    complains(lambda: pact.apply(values, X, execution="sparse"), "execution is 'sparse'")
    complains(lambda: pact.apply(values, X, halting_shift=np.zeros(2)), "halting_shift", "(3,)")
