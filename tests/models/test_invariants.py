"""Invariants of every registered model.

Every model is traced at its canonical size, which computes nothing. Values are computed for those
that are cheap, and, among the slow tests, for the others. What is cheap is decided by the cost that
is counted, and within a family (what is left of the name without its numbers) the smallest stands
for all: the others are the same code with other widths and depths.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

import adaptive_nets as an
from adaptive_nets.analysis.macs import Cost, count_cost
from adaptive_nets.models import full_output, model_entry
from adaptive_nets.training.task import STREAMS

pytestmark = pytest.mark.core
NAMES = an.list_models()
# Multiply-accumulates and parameters up to which a forward and backward pass takes seconds.
CHEAP = Cost(parameters=3_000_000, macs=45_000_000)


def family(name: str) -> str:
    """Returns the key that related models share."""
    plain = re.sub(r"\d.*?(?=_sparse|_act|_sact|_pact|$)", "", name)
    return plain + ("_small" if "cifar" in name or "svhn" in name else "")


@functools.cache
def cost(name: str) -> Cost:
    return count_cost(name)


def rough_size(name: str) -> tuple[int, ...]:
    """Orders relatives without tracing them: image size, then the numbers in the name."""
    height, width, _ = model_entry(name).input_shape
    return (height * width, *(int(number) for number in re.findall(r"\d+", name)), len(name))


def representatives() -> list[str]:
    """The smallest of every family."""
    families = defaultdict(list)
    for name in NAMES:
        families[family(name)].append(name)
    return sorted(min(members, key=rough_size) for members in families.values())


CHOSEN = representatives()
TRACED = [pytest.param(n, marks=() if n in CHOSEN else pytest.mark.slow) for n in NAMES]
# In training a trace takes seconds for networks of large images.
SMALL = [n for n in CHOSEN if rough_size(n)[0] <= 32 * 32]
TRACED_IN_TRAINING = [pytest.param(n, marks=() if n in SMALL else pytest.mark.slow) for n in NAMES]


def values(name: str, *, batch: int):
    """Module, variables and a batch."""
    entry = model_entry(name)
    model = an.create_model(name)
    images = np.random.default_rng(1).normal(size=(batch, *entry.input_shape)).astype(np.float32)
    # A generator whose programs are compiled in no time; any values will do.
    variables = jax.jit(lambda key, x: model.init(key, x, train=False))(
        jax.random.key(0, impl="unsafe_rbg"), images[:1]
    )
    return model, variables, jnp.asarray(images)


def shapes_in(mode: str, name: str, **options):
    """Shapes of output and changed collections at canonical size; computes nothing."""
    entry = model_entry(name)
    model = an.create_model(name, **options)
    image = jax.ShapeDtypeStruct((2, *entry.input_shape), jnp.float32)
    output, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False), image
    )
    if mode == "test":
        return variables, (output, {})
    rngs = dict(zip(STREAMS, jax.random.split(jax.random.key(2), len(STREAMS)), strict=True))
    changing = [kind for kind in variables if kind != "params"]
    options = {"train": True, "rngs": rngs, "mutable": changing}
    plain, _ = jax.eval_shape(lambda v, x: model.apply(v, x, **options), variables, image)
    full = jax.eval_shape(lambda v, x: full_output(model, v, x, **options), variables, image)
    assert plain == full[0].logits, "the network returns logits in training too"
    return variables, full


@pytest.mark.parametrize("name", TRACED)
def test_shapes_and_dtypes_at_test(name):
    """Low precision, another number of classes: everything but that is as it is by default."""
    variables, (output, _) = shapes_in("test", name, dtype=jnp.bfloat16, num_classes=7)
    assert isinstance(output, jax.ShapeDtypeStruct), "logits alone"
    assert (output.shape, output.dtype) == ((2, 7), jnp.bfloat16)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", TRACED_IN_TRAINING)
def test_shapes_and_dtypes_in_training(name):
    """And as many parameters as are counted."""
    variables, (output, changed) = shapes_in("training", name)
    expected = (2, model_entry(name).num_classes)
    for logits in (output.logits, *output.auxiliary_logits):
        assert (logits.shape, logits.dtype) == (expected, jnp.float32)
    before = {kind: variables[kind] for kind in variables if kind != "params"}
    assert jax.tree.structure(dict(changed)) == jax.tree.structure(before)
    same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, changed, before)
    assert all(jax.tree.leaves(same))
    assert an.count_params(name) == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def _is_cheap(name: str) -> bool:
    height, width, _ = model_entry(name).input_shape
    if height * width > 32 * 32:
        return False
    found = cost(name)
    return found.parameters <= CHEAP.parameters and found.macs <= CHEAP.macs


# The same networks under another rule of halting, or in another form of one; tests of the rules
# compare them with each other.
RELATED = {"resnetv1_20_act_cifar10", "resnetv1_20_pact_cifar10", "rnn_pact_parity"}
# Each is tried in both sets of tests and computed in one of them; asking for its cost here would
# trace it whenever tests are collected.
COMPUTED = [
    pytest.param((name, "cheap"), marks=pytest.mark.slow if name in RELATED else ())
    for name in SMALL
] + [pytest.param((name, "dear"), marks=pytest.mark.slow) for name in CHOSEN]


@pytest.fixture(scope="module", params=COMPUTED, ids=lambda p: "-".join(p))
def made(request):
    """Name, module, variables, batch, and its compiled forward pass."""
    name, tier = request.param
    if _is_cheap(name) != (tier == "cheap"):
        pytest.skip(f"its cost belongs to the {'slow' if tier == 'cheap' else 'quick'} tests")
    model, variables, images = values(name, batch=4)
    traces = []

    def apply(variables, x):
        traces.append(x.shape)
        return model.apply(variables, x, train=False)

    return name, model, variables, images, jax.jit(apply), traces


def test_an_example_does_not_depend_on_its_neighbours(made):
    """Nor on its place, nor on what the batch is filled up with; and there is one trace for all."""
    name, _, variables, images, apply, traces = made
    whole = np.asarray(apply(variables, images))
    assert whole.shape == (4, model_entry(name).num_classes)
    assert np.all(np.isfinite(whole))
    order = np.array([3, 1, 0, 2])
    close(apply(variables, images[order]), whole[order], terms=1000)
    padded = jnp.concatenate([images[:2], jnp.full_like(images[2:], 1e3)])
    close(np.asarray(apply(variables, padded))[:2], whole[:2], terms=1000)
    assert len(traces) == 1


def test_jit_equals_eager(made):
    _, model, variables, images, apply, _ = made
    eager = model.apply(variables, images[:2], train=False)
    close(np.asarray(apply(variables, images))[:2], eager, terms=1000)


def test_gradients_are_finite_and_reach_every_parameter(made):
    name, model, variables, images, _, _ = made
    images = images if _is_cheap(name) else images[:2]
    streams = zip(STREAMS, jax.random.split(jax.random.key(2), len(STREAMS)), strict=True)
    rngs = dict(streams)
    state = {kind: tree for kind, tree in variables.items() if kind != "params"}

    @jax.jit
    def gradient(params, rngs):
        def loss(params):
            options = {"train": True, "rngs": rngs, "mutable": list(state)}
            output, _ = full_output(model, {"params": params, **state}, images, **options)
            logits = sum((output.logits, *output.auxiliary_logits))
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])

        return jax.grad(loss)(params)

    # Units may be skipped at random, paths dropped: over a few draws all of them take part.
    reached = None
    for draw in range(1 if not _is_random(name) else 8):
        keys = {name: jax.random.fold_in(key, draw) for name, key in rngs.items()}
        found = jax.device_get(gradient(variables["params"], keys))
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))
        now = jax.tree.map(lambda leaf: bool(np.any(leaf != 0)), found)
        reached = now if reached is None else jax.tree.map(lambda a, b: a or b, reached, now)
    for path, leaf in jax.tree_util.tree_leaves_with_path(reached):
        assert leaf, jax.tree_util.keystr(path)


def _is_random(name: str) -> bool:
    return "stochastic" in name or "fractal" in name


def test_counts_agree(made):
    """Parameters are those of the arrays; XLA counts as many multiplications, but for padding."""
    name, _, variables, images, apply, _ = made
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert cost(name).parameters == an.count_params(name) == parameters
    # The program for a CPU multiplies by zeros between narrow channel groups; another has none.
    lowered = apply.trace(variables, images).lower(lowering_platforms=("cuda",))
    flops = lowered.cost_analysis()["flops"] / len(images)
    # Taps on padding are left out there, and operations on elements are counted; a variational
    # network multiplies once more for its variances and computes them from every weight.
    most = 2 if name.endswith("_sparse_vd") else 1.25
    assert 0.75 < flops / (2 * cost(name).macs) < most


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_sparse_vd")])
def test_a_variational_network_is_its_plain_one_with_variances(name):
    plain = name.removesuffix("_sparse_vd")
    assert an.count_macs(name) == an.count_macs(plain)
    assert model_entry(name).input_shape == model_entry(plain).input_shape
