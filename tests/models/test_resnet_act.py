"""Networks of adaptive depth, dense and masked, against their limits and loops in NumPy."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, SIZES, cifar, initial, plain, variables, without_weights
from tolerances import close

import adaptive_nets as an
from adaptive_nets.halting import computation_penalty, expected_units, mask_residual
from adaptive_nets.models import ponder_map
from adaptive_nets.models.adaptive.blocks import run_act_block, run_probabilistic_block
from adaptive_nets.models.adaptive.weights import init_from_plain
from adaptive_nets.models.weights.stored import flatten
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
RNGS = {"halting": jax.random.key(5)}


def only_shared(tree):
    """Returns the variables that an adaptive network shares with the plain one."""
    return {
        kind: {name: leaf for name, leaf in scope.items() if not name.endswith("_head")}
        for kind, scope in tree.items()
    }


def test_parameters_are_those_of_the_plain_network_and_heads():
    heads = {"act": lambda c: 2 * c + c + 1, "sact": lambda c: 4 * c + 9 * c + c + 1}
    heads["pact"] = heads["sact"]
    below = jax.eval_shape(lambda: plain().init(jax.random.key(0), IMAGES))
    shared = {name: leaf.shape for name, leaf in flatten_shapes(below).items()}
    for rule, count in heads.items():
        tree = jax.eval_shape(lambda r=rule: cifar(r).init(jax.random.key(0), IMAGES))
        found = {name: leaf.shape for name, leaf in flatten_shapes(tree).items()}
        assert shared.items() <= found.items()
        more = sum(
            int(np.prod(shape))
            for name, shape in found.items()
            if name not in shared and name.startswith("params")
        )
        assert more == sum(
            (size - 1) * count(width) for size, width in zip(SIZES, (4, 6), strict=True)
        )
        assert all(f"_{rule}_head/" in name for name in found.keys() - shared.keys())


def flatten_shapes(tree):
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_without_halting_it_is_the_plain_network():
    model = cifar("sact")
    values = variables(model, bias=-60.0)
    output = jax.jit(lambda v: an.full_output(model, v, IMAGES))(values)
    expected = jax.jit(lambda v: plain().apply(v, IMAGES))(only_shared(values))
    close(output.logits, expected, terms=100)
    for block, size in zip(output.blocks, SIZES, strict=True):
        assert np.all(block.num_units == size)
        close(block.ponder_cost, np.full(block.ponder_cost.shape, size + 1.0))


def test_without_its_convolution_sact_is_act():
    sact, act = cifar("sact"), cifar("act")
    values = without_weights(variables(sact, bias=-0.3), "conv_local")
    as_act = variables(act, bias=0.0)
    for name, head in as_act["params"].items():
        if name.endswith("_act_head"):
            found = values["params"][name.replace("_act_", "_sact_")]
            head["norm_global"] = found["norm_global"]
            kernel = found["dense_global"]["kernel"]
            head["dense_global"] = {"kernel": kernel, "bias": found["bias"].reshape(1)}
            statistics = values["batch_stats"][name.replace("_act_", "_sact_")]
            as_act["batch_stats"][name]["norm_global"] = statistics["norm_global"]
        else:
            as_act["params"][name] = values["params"][name]
            if name in values["batch_stats"]:
                as_act["batch_stats"][name] = values["batch_stats"][name]
    spatial = jax.jit(lambda v: an.full_output(sact, v, IMAGES))(values)
    image = jax.jit(lambda v: an.full_output(act, v, IMAGES))(as_act)
    close(spatial.logits, image.logits, terms=100)
    assert np.all(np.asarray(image.blocks[0].num_units) < SIZES[0])
    for per_position, per_image in zip(spatial.blocks, image.blocks, strict=True):
        expected = np.broadcast_to(
            np.asarray(per_image.num_units)[:, None, None], per_position.num_units.shape
        )
        assert np.array_equal(per_position.num_units, expected)


def residual_units(residuals):
    """Units x -> x + mask · r of one channel; the first one adds to its input everywhere."""

    return [lambda x, mask, r=r: x + mask_residual(jnp.full_like(x, r), mask) for r in residuals]


def constant_heads(probs):
    """Heads with these probabilities [W] at the positions of one row."""
    h = jnp.asarray(probs)
    logits = jnp.log(h) - jnp.log1p(-h)
    return [lambda x, row=row: jnp.broadcast_to(row[None, None], x.shape[:3]) for row in logits]


def test_golden_values_of_the_authors_test():
    """Two positions: residual 1 from input 0."""
    units = residual_units([1.0, 1.0, 1.0])
    heads = constant_heads([(0.9, 0.1), (0.5, 0.1)])
    output, trace = run_act_block(units, heads, jnp.zeros((1, 1, 2, 1)), per_image=False, eps=0.01)
    close(output[0, 0, :, 0], [1.1, 2.7], terms=4)
    close(trace.ponder_cost[0, 0], [2.1, 3.8], terms=4)
    assert trace.num_units[0, 0].tolist() == [2, 3]
    close(trace.weights[0, 0], [[0.9, 0.1, 0.0], [0.1, 0.1, 0.8]], terms=4)


def test_ponder_cost_pushes_scores_up_until_the_last_one():
    def cost(logits):
        heads = [lambda x, v=v: jnp.broadcast_to(v, x.shape[:1]) for v in logits]
        x = jnp.zeros((1, 1, 1, 1))
        _, trace = run_act_block(residual_units([0.0] * 5), heads, x, per_image=True, eps=0.01)
        return trace.ponder_cost[0]

    h = np.array([0.01, 0.5, 0.6, 0.7])
    value, slope = jax.value_and_grad(cost)(jnp.asarray(np.log(h / (1 - h)), jnp.float32))
    close(value, 3.49, terms=4)
    close(slope, np.array([-1.0, -1.0, 0.0, 0.0]) * h * (1 - h), gradient=True)


def probabilistic(mode, logits, *, key=0, temperature=0.5):
    heads = [lambda x, v=v: jnp.broadcast_to(v, x.shape[:3]) for v in logits]
    keys = iter(jax.random.split(jax.random.key(key), 8))
    return run_probabilistic_block(
        residual_units([1.0, 2.0, 4.0]),
        heads,
        jnp.zeros((2, 2, 2, 1)),
        mode=mode,
        groups=None,
        temperature=temperature,
        next_key=lambda: next(keys),
    )


@pytest.mark.parametrize("logits", [(-80.0, 80.0), (80.0, -80.0), (-80.0, -80.0)])
def test_at_extreme_probabilities_the_three_modes_agree(logits):
    outputs = {mode: probabilistic(mode, logits) for mode in ("relaxed", "discrete", "thresholded")}
    stop = next((i for i, v in enumerate(logits) if v > 0), 2)
    for mode, (output, trace) in outputs.items():
        close(output, np.full((2, 2, 2, 1), (1.0, 3.0, 7.0)[stop]), terms=10)
        close(trace.weights[0, 0, 0], np.eye(3)[stop], terms=10)
        if mode != "relaxed":
            assert np.all(trace.num_units == stop + 1)
            close(np.exp(trace.log_prob), np.ones(2))


def test_a_relaxed_block_weighs_states_that_are_softly_masked():
    output, trace = probabilistic("relaxed", (0.3, -0.4))
    weights = np.asarray(trace.weights, np.float64)
    close(weights.sum(-1), np.ones((2, 2, 2)), terms=3)
    assert np.std(weights[..., 0]) > 0.01
    # The mask on unit l is the weight that is left before it.
    left = 1 - np.concatenate([np.zeros((2, 2, 2, 1)), np.cumsum(weights, -1)[..., :-1]], -1)
    states = np.cumsum(left * np.array([1.0, 2.0, 4.0]), -1)
    close(output[..., 0], (weights * states).sum(-1), terms=10)
    assert np.all(trace.num_units == 3)
    close(trace.ponder_cost, expected_units(trace.halting_probs))


def test_a_threshold_needs_no_randomness_and_a_sample_does():
    model = cifar("pact", groups=2)
    values = variables(model, bias=-0.5)
    apply = jax.jit(functools.partial(an.full_output, model), static_argnames="mode")
    once = apply(values, IMAGES, mode="thresholded")
    for block in once.blocks:
        stops = np.asarray(block.halting_probs) > 0.5
        assert np.array_equal(block.num_units, stops.argmax(-1) + 1)
    assert [b.ponder_cost.shape for b in once.blocks] == [(2, 2, 2), (2, 2, 2)]
    sampled = apply(values, IMAGES, mode="discrete", rngs=RNGS)
    assert float(jnp.sum(sampled.blocks[0].log_prob)) < 0
    with pytest.raises(UserError, match="mode is 'discrete', which draws random numbers"):
        model.apply(values, IMAGES, mode="discrete")


def test_a_ponder_map_adds_up_blocks():
    model = cifar("sact")
    output = jax.jit(functools.partial(an.full_output, model))(variables(model, bias=-1.0), IMAGES)
    first, second = (np.asarray(block.ponder_cost) for block in output.blocks)
    expected = np.repeat(np.repeat(first, 2, 1), 2, 2)
    expected = expected + np.repeat(np.repeat(second, 4, 1), 4, 2)
    close(ponder_map(output, (16, 16)), expected)
    penalty = computation_penalty([b.ponder_cost for b in output.blocks], 0.5)
    close(penalty, 0.5 * (first.mean((1, 2)) + second.mean((1, 2))), terms=64)


def test_a_plain_network_initialises_an_adaptive_one():
    adaptive = initial(cifar("sact"))
    trained = jax.tree.map(lambda leaf: leaf + 1, only_shared(adaptive))
    found = flatten(init_from_plain(adaptive, trained))
    for name, leaf in flatten(adaptive).items():
        expected = leaf if "_head/" in name else leaf + 1
        assert np.array_equal(found[name], expected)
    short = {**trained, "params": {k: v for k, v in trained["params"].items() if k != "linear"}}
    with pytest.raises(UserError, match="params/linear is missing in the plain network"):
        init_from_plain(adaptive, short)


def test_scores_are_not_probabilities():
    with pytest.raises(UserError, match="halting heads of 'act'; expected those of 'pact'"):
        cifar("pact").apply(initial(cifar("act")), IMAGES)
    with pytest.raises(UserError, match="scores that are summed, not halting probabilities"):
        init_from_plain(initial(cifar("pact")), initial(cifar("sact")))


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("sact", {"eps": 0.0}, r"eps is 0.0; expected a number in \(0, 1\)"),
        ("act", {"eps": 1.0}, "eps is 1.0"),
        ("pact", {"temperature": 0.0}, "temperature is 0.0; expected a finite number above 0"),
        ("pact", {"temperature": -1.0}, "temperature is -1.0"),
        ("pact", {"groups": 0}, "groups is 0; expected a positive integer"),
        ("pact", {"eps": 0.1}, "takes no 'eps'"),
    ],
)
def test_a_mistake_is_named(rule, options, message):
    with pytest.raises(UserError, match=message):
        an.create_model(f"resnet32_{rule}_cifar10", **options)


@pytest.mark.parametrize(
    ("rule", "mode", "message"),
    [
        (
            "sact",
            "discrete",
            "mode is 'discrete'; expected None, since the rule 'sact' has no modes",
        ),
        ("pact", "relaxd", "mode is 'relaxd'; did you mean 'relaxed'"),
    ],
)
def test_a_mode_that_does_not_fit(rule, mode, message):
    with pytest.raises(UserError, match=message):
        cifar(rule).apply(initial(cifar(rule)), IMAGES, mode=mode, rngs=RNGS)


def test_a_map_of_another_resolution_is_refused():
    units = [lambda x, mask: x, lambda x, mask: x]
    head = [lambda x: jnp.zeros((1, 3, 3))]
    with pytest.raises(UserError, match=r"\(1, 3, 3\)"):
        run_act_block(units, head, jnp.zeros((1, 4, 4, 1)), per_image=False, eps=0.01)
