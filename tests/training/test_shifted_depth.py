"""Random shifts of halting logits in training: each image has its own, evaluation has none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adaptive_networks import IMAGES, cifar, initial
from tolerances import close

from adaptive_nets.training.depth import SampledDepth, adaptive_depth
from adaptive_nets.training.shifted_depth import ShiftedDepth, unwrapped, with_random_shifts

pytestmark = pytest.mark.core

KEY = jax.random.key(5)


def training_output(network, variables, images):
    @jax.jit
    def run(variables):
        return network.apply(
            variables, images, True, rngs={"halting": KEY}, method="full_output",
            mutable=["batch_stats"],
        )[0]  # fmt: skip

    return run(variables)


@pytest.mark.parametrize("rule", ["sact", "act", "pact"])
def test_shifts_are_within_their_range_and_differ_between_images(rule):
    network = cifar(rule)
    variables = initial(network)
    images = jnp.concatenate([IMAGES[:1]] * 6)
    shifted = ShiftedDepth(network, -2.0, 3.0)
    made = jax.eval_shape(lambda: shifted.init(jax.random.key(0), IMAGES))
    assert jax.tree.structure(made) == jax.tree.structure(variables)
    traces = [training_output(n, variables, images).blocks for n in (network, shifted)]
    # The input of the first head depends on no shift yet, so its logits tell the shifts.
    before, after = (np.asarray(t[0].halting_logits)[..., 0].reshape(6, -1) for t in traces)
    found = after - before
    close(found, np.broadcast_to(found[:, :1], found.shape), terms=40)
    assert found.min() >= -2 - 1e-5
    assert found.max() <= 3 + 1e-5
    assert np.ptp(found[:, 0]) > 0.5


def test_evaluation_has_no_shift_unless_one_is_given():
    network = cifar("sact")
    variables = initial(network)
    shifted = ShiftedDepth(network, -2.0, 3.0)
    close(shifted.apply(variables, IMAGES), network.apply(variables, IMAGES))
    given = {"halting_shift": 4.0, "method": "full_output"}
    ours, theirs = (n.apply(variables, IMAGES, **given) for n in (shifted, network))
    close(ours.logits, theirs.logits)


def test_every_image_has_the_tau_of_its_shift():
    network = cifar("sact")
    variables = initial(network)
    images = jnp.concatenate([IMAGES[:1]] * 6)
    plain = training_output(network, variables, images)
    grown = training_output(ShiftedDepth(network, -2.0, 3.0, 0.5), variables, images)
    first = [np.asarray(t.blocks[0].halting_logits)[..., 0].reshape(6, -1) for t in (plain, grown)]
    shifts = (first[1] - first[0]).mean(1)
    np.testing.assert_allclose(grown.penalty_factors, np.exp(0.5 * shifts), rtol=1e-4)
    assert plain.penalty_factors is None

    batch = {"image": images, "label": jnp.arange(6) % 4}
    rate = 0.7
    loss, _ = adaptive_depth(lambda step: rate)(grown, batch, variables["params"], 0)
    task, _ = adaptive_depth(lambda step: 0.0)(grown, batch, variables["params"], 0)
    costs = sum(np.asarray(b.ponder_cost).reshape(6, -1).mean(1) for b in grown.blocks)
    expected = rate * np.mean(np.exp(0.5 * shifts) * costs)
    np.testing.assert_allclose(float(loss) - float(task), expected, rtol=1e-4)


def test_without_growth_the_penalty_is_that_of_one_tau():
    network = cifar("act")
    variables = initial(network)
    output = training_output(ShiftedDepth(network, -1.0, 1.0), variables, IMAGES)
    batch = {"image": IMAGES, "label": jnp.zeros(len(IMAGES), jnp.int32)}
    objective = adaptive_depth(lambda step: 0.3)
    losses = [
        objective(o, batch, variables["params"], 0)[0]
        for o in (output, output.replace(penalty_factors=None))
    ]
    close(losses[0], losses[1])


def test_without_a_range_there_is_no_wrapper():
    network = cifar("pact")
    assert with_random_shifts(network, ()) is network
    assert unwrapped(network) is network
    assert unwrapped(with_random_shifts(network, (-1.0, 1.0))) is network
    assert unwrapped(SampledDepth(network, num_steps=4)) is network
