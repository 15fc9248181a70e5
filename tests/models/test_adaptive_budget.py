"""One network at any budget: met on other images, in both executions, by one program."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from adaptive_networks import bottleneck, cifar, variables
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models.adaptive.budgets import calibrate_budget, with_budget
from adaptive_nets.models.adaptive.cost import flops_per_image, plain_flops

pytestmark = pytest.mark.core
COUNT = 320


def images(seed, count=160):
    """Images with contrasts that differ, so that images differ in cost."""
    rng = np.random.default_rng(seed)
    contrast = rng.uniform(0.2, 2, (count, 1, 1, 1))
    return (contrast * rng.standard_normal((count, 8, 8, 3))).astype(np.float32)


@functools.cache
def calibrated(rule):
    """A calibrated network, compiled for one batch shape only."""
    model = cifar(rule)
    values = variables(model, bias=-0.5)
    found = calibrate_budget(model, values, images(0), batch_size=64, evaluations=40)
    return with_budget(model, values, found)


@pytest.mark.parametrize(
    "rule", ["pact", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("act", "sact"))]
)
def test_budgets_are_met_on_other_images_by_one_program(rule):
    network, others = calibrated(rule), images(1, COUNT)
    calibration = network.calibration
    low, high = float(calibration.flops[0]), float(calibration.flops[-1])
    previous = None
    for part in (0.05, 0.3, 0.5, 0.8, 1.0):
        budget = low + part * (high - low)
        flops = network.flops(others, network(others, budget))
        assert flops.mean() == pytest.approx(budget, rel=0.02)
        share = budget / float(calibration.plain_flops)
        assert np.array_equal(network.flops(others, network(others, share)), flops)
        if previous is not None and rule == "act":
            assert np.all(flops >= previous)
        previous = flops
    # A budget per image: the images of each budget meet it on average.
    wanted = np.tile([low + 0.2 * (high - low), low + 0.7 * (high - low)], COUNT // 2)
    flops = network.flops(others, network(others, wanted))
    for start in (0, 1):
        assert flops[start::2].mean() == pytest.approx(wanted[start], rel=0.03)
    assert network._program._cache_size() == 1


def test_the_ends_are_the_first_units_and_the_plain_network():
    network, x = calibrated("pact"), images(2, COUNT)
    model, calibration = network.model, network.calibration
    output = network(x, float(calibration.flops[0]))
    assert all(np.all(block.num_units == 1) for block in output.blocks)
    assert np.all(network.flops(x, output) == calibration.flops[0])
    output = network(x, float(calibration.flops[-1]))
    assert all(np.all(block.num_units == block.weights.shape[-1]) for block in output.blocks)
    assert np.all(network.flops(x, output) == calibration.flops[-1])
    plain = plain_flops(model, output, image_size=(8, 8))
    assert plain == 2 * an.count_macs(model, input_shape=(8, 8, 3)) - heads(model)
    assert plain == calibration.plain_flops


def heads(model):
    """FLOPs of all halting heads of `cifar`, by hand."""
    sizes = zip(model.stage_sizes, model.widths, (64, 16), strict=True)
    return sum((count - 1) * 2 * (9 * width * area + width) for count, width, area in sizes)


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        (bottleneck("sact", head_norm=False), "sact"),
        pytest.param(bottleneck("pact"), "pact", marks=pytest.mark.slow),
        pytest.param(cifar("act"), "act", marks=pytest.mark.slow),
    ],
)
def test_both_executions_take_a_budget_per_image(model, rule):
    values, x = variables(model, bias=-0.5), images(3, 6)
    shifts = np.array([-50, -1, 0, 0.5, 1, 50], np.float32)
    programs = {
        execution: jax.jit(functools.partial(an.full_output, model, execution=execution))
        for execution in ("dense", "skipping")
    }
    dense, skipping = (run(values, x, halting_shift=shifts) for run in programs.values())
    close(skipping.logits, dense.logits, terms=1000)
    flops = flops_per_image(model, skipping)
    assert np.array_equal(flops, flops_per_image(model, dense))
    assert flops[0] == flops.max() > flops[-1] == flops.min()
    # Images do not see the shifts of others.
    others = np.where(np.arange(6) == 2, shifts, 0.3).astype(np.float32)
    close(programs["dense"](values, x, halting_shift=others).logits[2], dense.logits[2])


def test_a_call_with_a_budget_is_a_call_with_its_shifts():
    network, x = calibrated("pact"), images(4, COUNT)
    model, values, calibration = network.model, network.variables, network.calibration
    budget = np.linspace(0.5, 0.9, COUNT, dtype=np.float32)
    compiled = jax.jit(lambda v, x, b, c: model.apply(v, x, budget=b, calibration=c))
    found = compiled(values, x, budget, calibration)
    close(found, network(x, budget).logits, terms=1000)
    assert not np.array_equal(found, network(x, 0.5).logits)
    empty = jax.eval_shape(
        lambda x: model.apply(values, x, budget=0.5, calibration=calibration), x[:0]
    )
    assert empty.shape == (0, 5)


def test_mistakes(complains):
    network, x = calibrated("pact"), images(5, 2)
    model, values, calibration = network.model, network.variables, network.calibration
    least = int(calibration.flops[0])
    message = complains(lambda: network(x, 0.01), "budget is 0.01", f"from {least} FLOPs")
    assert "first units" in message
    complains(lambda: network(x, 1.9), "budget is 1.9", "the whole network")
    complains(lambda: network(x, [0.5, 0.5, 0.5]), "budget has shape (3,)", "(2,)")

    def call(**options):
        return lambda: jax.eval_shape(lambda: model.apply(values, x, **options))

    complains(call(budget=0.5), "budget is 0.5", "calibration is None", "calibrate_budget")
    complains(call(budget=0.01, calibration=calibration), "budget is 0.01")
    complains(call(halting_shift=np.zeros(3)), "halting_shift has shape (3,)", "(2,)")
    both = {"budget": 0.5, "calibration": calibration, "halting_shift": 0.0}
    complains(call(**both), "budget and halting_shift")
    rngs = {"halting": jax.random.key(0)}
    training = {"budget": 0.5, "calibration": calibration, "train": True, "rngs": rngs}
    complains(call(**training, mutable=["batch_stats"]), "train is True")
    complains(
        lambda: model.apply(values, x, mode="discrete", budget=0.5, calibration=calibration,
                           rngs={"halting": jax.random.key(0)}),
        "mode is 'discrete'", "thresholded",
    )  # fmt: skip
    complains(lambda: calibrate_budget(model, values, x[:0]), "images have shape (0, 8, 8, 3)")
    complains(lambda: calibrate_budget(model, values, x[0]), "images have shape (8, 8, 3)")
    plain = an.create_model("lenet5_caffe")
    complains(lambda: calibrate_budget(plain, {}, x), "LeNet5Caffe", "adaptive depth")
