"""The skipping form gives the outputs of the dense one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, bottleneck, cifar, initial, variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.adaptive.network import FOLDED
from adaptive_nets.runtime.errors import UserError
from kernels import record_implementations

pytestmark = pytest.mark.core
RNGS = {"halting": jax.random.key(5)}


def skip(model, values, x, **options):
    """The full output of a network's skipping form, compiled."""
    run = functools.partial(an.full_output, model, execution="skipping", **options)
    return jax.jit(run)(values, x)


@pytest.mark.parametrize(
    ("model", "mode", "middle"),
    [
        # Each compiles two networks; the quick ones have one block that halts.
        pytest.param(bottleneck("sact", head_norm=False), None, -0.5, id="bottleneck"),
        pytest.param(cifar("act"), None, -0.5, id="act", marks=pytest.mark.slow),
        pytest.param(cifar("sact"), None, -0.5, id="sact", marks=pytest.mark.slow),
        pytest.param(bottleneck("pact"), "discrete", -0.5, id="discrete", marks=pytest.mark.slow),
        pytest.param(
            cifar("pact", groups=2), "thresholded", -2.0, id="thresholded", marks=pytest.mark.slow
        ),
    ],
)
def test_skipping_equals_masking(model, mode, middle):
    dense = jax.jit(functools.partial(an.full_output, model, mode=mode, rngs=RNGS))
    skipping = functools.partial(skip, model, mode=mode, rngs=RNGS)
    seen = set()
    # Everything stops after the first unit, nothing stops, and some of it does.
    for bias in (40.0, -40.0, middle):
        values = variables(model, bias=bias)
        expected, found = dense(values, IMAGES), skipping(values, IMAGES)
        close(found.logits, expected.logits, terms=1000)
        for ours, theirs in zip(found.blocks, expected.blocks, strict=True):
            assert np.array_equal(ours.num_units, theirs.num_units)
            close(ours.weights, theirs.weights, terms=1000)
            ran = np.arange(ours.weights.shape[-1]) < np.asarray(ours.num_units)[..., None]
            assert np.all(np.asarray(ours.halting_probs)[~ran] == 0)
            close(ours.log_prob, theirs.log_prob, terms=1000)
            if mode is None:
                close(ours.ponder_cost, theirs.ponder_cost, terms=1000)
        assert np.array_equal(flops_per_image(model, found), flops_per_image(model, expected))
        count = found.blocks[0].weights.shape[-1]
        units = np.asarray(found.blocks[0].num_units)
        seen.add("none" if np.all(units == 1) else "all" if np.all(units == count) else "some")
    assert seen >= {"none", "all"}
    if model.halting.rule != "act":
        assert "some" in seen


def test_folding_once_is_folding_in_every_call_and_needs_less():
    model = cifar("act").clone(stage_sizes=(2,), widths=(4,))
    values = variables(model, bias=-0.5)
    folded = model.fold(values)
    assert set(folded) == {"params", "batch_stats", FOLDED}
    assert sorted(folded["params"]) == ["bn", "conv1", "layer1_0", "linear"]
    close(skip(model, folded, IMAGES).logits, skip(model, values, IMAGES).logits, terms=100)
    with pytest.raises(UserError, match="variables are folded for execution='skipping'"):
        model.apply(folded, IMAGES)


def test_an_attribute_sets_the_execution_and_a_call_may_name_another():
    dense = bottleneck("act")
    skipping = dense.clone(execution="skipping")
    # Variables are the same, whichever form they are made with.
    values = initial(dense)
    same = jax.eval_shape(skipping.init, jax.random.key(0), IMAGES)
    assert jax.tree.map(jnp.shape, values) == jax.tree.map(lambda leaf: leaf.shape, same)
    with record_implementations() as ran:
        ours = jax.eval_shape(skipping.apply, values, IMAGES)
    assert ran == {"masked_unit": ["xla:sparse or dense"]}
    with record_implementations() as ran:
        theirs = jax.eval_shape(
            functools.partial(skipping.apply, execution="dense"), values, IMAGES
        )
    assert ran == {}
    assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, ours, theirs))


@pytest.mark.parametrize("execution", ["dense", "skipping"])
@pytest.mark.parametrize(
    ("model", "options"),
    [
        (bottleneck("act"), {}),
        (cifar("sact"), {}),
        (cifar("pact", groups=2), {"mode": "discrete", "rngs": RNGS}),
    ],
    ids=["act", "sact", "pact"],
)
@pytest.mark.slow
def test_an_empty_batch_gives_an_empty_output(model, options, execution):
    output = an.full_output(model, initial(model), IMAGES[:0], execution=execution, **options)
    assert output.logits.shape == (0, 5)
    assert [len(block.num_units) for block in output.blocks] == [0, 0]
    assert flops_per_image(model, output).shape == (0,)


@pytest.mark.slow
def test_a_batch_of_one_is_the_image_in_a_batch():
    model = cifar("sact")
    folded = model.fold(variables(model, bias=-0.5))
    both = skip(model, folded, IMAGES)
    one = skip(model, folded, IMAGES[1:])
    close(one.logits, both.logits[1:], terms=1000)
    assert np.array_equal(one.blocks[0].num_units, both.blocks[0].num_units[1:])


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("pact", {"mode": "relaxed"}, "mode is 'relaxed', which runs every unit"),
        ("pact", {"mode": "discrete"}, "mode is 'discrete', which draws random numbers"),
        ("sact", {"train": True}, "execution is 'skipping' and train is True"),
        ("sact", {"execution": "skiping"}, "execution is 'skiping'; did you mean 'skipping'"),
    ],
)
def test_a_mistake_is_named(rule, options, message):
    model = cifar(rule)
    with pytest.raises(UserError, match=message):
        model.apply(initial(model), IMAGES, **{"execution": "skipping", **options})


def test_a_network_without_a_skipping_form_says_so():
    model = an.create_model("rnn_act_parity")
    x = jnp.ones((1, 3, 5, 1))
    values = jax.jit(model.init)(jax.random.key(0), x)
    with pytest.raises(UserError, match="AdaptiveRecurrent has no skipping form"):
        model.apply(values, x, execution="skipping")
    with pytest.raises(UserError, match="takes no 'execution'"):
        an.create_model("rnn_act_parity", execution="skipping")
    with pytest.raises(UserError, match="execution is 'sparse'"):
        an.create_model("resnet32_sact_cifar10", execution="sparse")


def test_weights_of_another_rule_are_refused():
    values = initial(cifar("pact"))
    with pytest.raises(UserError, match="halting heads of 'pact'; expected those of 'sact'"):
        cifar("sact").fold(values)


def test_macs_are_those_of_all_units_for_either_execution():
    name = "resnet32_act_cifar10"
    assert an.count_macs(name, execution="skipping") == an.count_macs(name)


def test_units_are_as_wide_as_computed():
    """In half precision too, where heads stay in single."""
    model = cifar("sact").copy(dtype=jnp.bfloat16)
    run = functools.partial(an.full_output, model, execution="skipping")
    output = jax.eval_shape(run, initial(model), IMAGES)
    assert output.logits.dtype == jnp.bfloat16
    assert output.blocks[0].halting_probs.dtype == jnp.float32
