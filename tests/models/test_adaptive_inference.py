"""Skipping gives what computing everything and masking gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, bottleneck, cifar, initial, variables
from tolerances import close

from adaptive_nets.models.adaptive.inference import prepare, skip
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
RNGS = {"halting": jax.random.key(5)}


@pytest.mark.parametrize(
    ("model", "mode", "middle"),
    [
        # Each compiles two networks; the quick ones have one block that halts.
        pytest.param(bottleneck("sact", head_norm=False), None, -0.5, id="bottleneck"),
        pytest.param(cifar("act"), None, -0.5, id="act", marks=pytest.mark.slow),
        pytest.param(cifar("sact"), None, -0.5, id="sact", marks=pytest.mark.slow),
        pytest.param(bottleneck("pact"), "discrete", -0.5, id="discrete"),
        pytest.param(
            cifar("pact", groups=2), "thresholded", -2.0, id="thresholded", marks=pytest.mark.slow
        ),
    ],
)
def test_skipping_equals_masking(model, mode, middle):
    dense = jax.jit(lambda v, x: model.apply(v, x, mode=mode, rngs=RNGS))
    skipping = jax.jit(lambda v, x: skip(model, prepare(model, v), x, mode=mode, rngs=RNGS))
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
        count = found.blocks[0].weights.shape[-1]
        units = np.asarray(found.blocks[0].num_units)
        seen.add("none" if np.all(units == 1) else "all" if np.all(units == count) else "some")
    assert seen >= {"none", "all"}
    if model.halting.rule != "act":
        assert "some" in seen


@pytest.mark.slow
def test_a_batch_of_one_is_the_image_in_a_batch():
    model = cifar("sact")
    prepared = prepare(model, variables(model, bias=-0.5))
    both = skip(model, prepared, IMAGES)
    one = skip(model, prepared, IMAGES[1:])
    close(one.logits, both.logits[1:], terms=1000)
    assert np.array_equal(one.blocks[0].num_units, both.blocks[0].num_units[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "relaxed"}, "mode is 'relaxed', which runs every unit"),
        ({"mode": "discrete"}, "mode is 'discrete' and there is no rngs"),
    ],
)
def test_a_mistake_is_named(options, message):
    model = cifar("pact")
    with pytest.raises(UserError, match=message):
        skip(model, None, IMAGES, **options)


def test_weights_of_another_rule_are_refused():
    with pytest.raises(UserError, match="halting heads of 'pact'; expected those of 'sact'"):
        prepare(cifar("sact"), initial(cifar("pact")))


def test_units_are_as_wide_as_computed(rng):
    """In half precision too, where heads stay in single."""
    model = cifar("sact").copy(dtype=jnp.bfloat16)
    values = initial(model)
    output = jax.eval_shape(lambda v, x: skip(model, prepare(model, v), x), values, IMAGES)
    assert output.logits.dtype == jnp.bfloat16
    assert output.blocks[0].halting_probs.dtype == jnp.float32
