"""Networks of users: accepted with the definition's copies as result, or refused in one line.

The oracle runs the unperforated network and replaces the output of every convolution module by
copies of the nearest kept positions.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from adaptive_nets.perforation import (
    FilledLoss,
    activation_bytes,
    adapt_network,
    average_impact,
    conv_layers,
    make_plan,
    perforate,
    plan_macs,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

SHAPE = (7, 9, 3)
HELD = np.random.default_rng(0).integers(0, 2, (3, 3, 3, 4)).astype(np.float32)


class Net(nn.Module):
    """A function of a map, then a mean over positions; no `train`."""

    body: Any

    @nn.compact
    def __call__(self, x):
        x = self.body(x)
        return x.mean(axis=tuple(range(1, x.ndim - 1)))


class Doubled(nn.Conv):
    def __call__(self, inputs):
        return 2 * super().__call__(inputs) + 1


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        return nn.relu(nn.Conv(3, (3, 3))(x))


class Carried(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return Block()(x), None


class Twice(nn.Module):
    """A module used twice, and another name for `train`."""

    def setup(self):
        self.first, self.second = nn.Conv(3, (3, 3)), nn.Conv(4, (3, 3))

    def __call__(self, x, training):
        return self.second(nn.relu(self.first(nn.relu(self.first(x))))).mean((1, 2))


class Dropping(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Dropout(0.5)(nn.Conv(4, (3, 3))(x), deterministic=deterministic)
        return nn.Conv(5, (3, 3))(x).mean((1, 2))


def halved(lhs, rhs, *args, **options):
    return 2 * jax.lax.conv_general_dilated(lhs / 2, rhs, *args, **options)


def in_float32(lhs, rhs, *args, **options):
    options["preferred_element_type"] = jnp.float32
    return jax.lax.conv_general_dilated(lhs, rhs, *args, **options)


def conv(features=4, window=(3, 3), **options):
    return Net(lambda x: nn.Conv(features, window, **options)(x))


def over_two(axes):
    lifted = nn.vmap(
        Block, variable_axes={"params": axes}, split_rngs={"params": axes == 0}, axis_size=2
    )
    return Net(lambda x: lifted()(jnp.stack([x, x + 1])).sum(0))


ACCEPTED: dict[str, Any] = {
    "without a bias": conv(use_bias=False),
    "grouped, strided": conv(6, feature_group_count=3, strides=2),
    "circular": conv(6, (3, 5), padding="CIRCULAR"),
    "reflected": conv(6, (5, 3), padding="REFLECT"),
    "even window": conv(6, (2, 4), strides=(1, 3)),
    "padding of a number": conv(padding=1, strides=(2, 1)),
    "masked kernel": conv(mask=HELD),
    "bfloat16": conv(dtype=jnp.bfloat16),
    "float16": conv(dtype=jnp.float16),
    "parameters in bfloat16": conv(param_dtype=jnp.bfloat16),
    "precision": conv(precision=("default", "highest")),
    "own convolution": conv(conv_general_dilated=halved),
    "float32 from bfloat16": conv(dtype=jnp.bfloat16, conv_general_dilated=in_float32),
    "subclass": Net(lambda x: Doubled(4, (3, 3))(x)),
    "transposed at stride 1": Net(lambda x: nn.ConvTranspose(4, (3, 3))(x)),
    "sequential": nn.Sequential(
        [nn.Conv(4, (3, 3)), nn.relu, nn.Conv(5, (3, 3), strides=2), lambda x: x.mean((1, 2))]
    ),
    "twice": Twice(),
    "deterministic": Dropping(),
    "remat": Net(lambda x: nn.remat(Block)()(nn.Conv(3, (3, 3))(x))),
    "jit": Net(lambda x: nn.jit(Block)()(nn.Conv(3, (3, 3))(x))),
    "vmap of images": over_two(None),
    "vmap of weights": over_two(0),
    "weight norm": Net(lambda x: nn.WeightNorm(nn.Conv(4, (3, 3)))(x)),
    "before local": Net(lambda x: nn.ConvLocal(4, (3, 3))(nn.relu(nn.Conv(5, (3, 3))(x)))),
}
OPTIONS = {"twice": {"training": False}, "deterministic": {"deterministic": True}}


def copied(y, mask):
    flat = y.reshape(y.shape[0], -1, y.shape[-1])
    return flat[:, mask.nearest.ravel()].reshape(y.shape)


def oracle(model: Any, variables, x, plan, **options) -> Any:
    uses, found = Counter(), set()

    def copy(call, args, kwargs, context):
        y = call(*args, **kwargs)
        if context.method_name == "__call__" and isinstance(
            context.module, nn.Conv | nn.ConvTranspose
        ):
            name = "/".join(context.module.path)
            uses[name] += 1
            name += f"#{uses[name]}" if uses[name] > 1 else ""
            if name in plan.layers:
                found.add(name)
                y = copied(y, plan.layers[name])
        return y

    with nn.intercept_methods(copy):
        output = model.apply(variables, x, **options)
    assert found == set(plan.layers)
    return output


def plan_of_all(model, variables, key, shape=SHAPE):
    layers = conv_layers(model, variables, shape)
    rates = {layer.name: 0.6 for layer in layers if layer.perforable}
    return make_plan(key, layers, rates, "uniform"), layers


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_networks_equal_the_definition(name, key):
    model, options = ACCEPTED[name], OPTIONS.get(name, {})
    x = jax.random.normal(jax.random.key(4), (2, *SHAPE))
    with jax.numpy_rank_promotion("allow"):
        variables = jax.jit(lambda x: model.init(jax.random.key(1), x, **options))(x)
        plan, layers = plan_of_all(model, variables, key)
        assert plan.layers
        perforated = perforate(model, variables, plan, image_shape=SHAPE)
        actual = jax.jit(perforated.apply)(variables, x)
        expected = jax.jit(lambda v, x: oracle(model, v, x, plan, **options))(variables, x)
        whole = model.apply(variables, x, **options)
        # The same masks as run-time arrays, for the search.
        maps = {n: m.nearest for n, m in plan.layers.items()}
        sizes = {layer.name: layer.output_size for layer in layers if layer.perforable}
        labels = np.array([0, 1])
        losses = FilledLoss(model, variables, sizes=sizes, images=np.asarray(x), labels=labels)
        loss = losses.of(maps)
    assert actual.dtype == expected.dtype
    terms = 2e-2 if actual.dtype != jnp.float32 else 2e-6
    actual, expected, whole = (np.asarray(a, np.float32) for a in (actual, expected, whole))
    np.testing.assert_allclose(actual, expected, rtol=terms, atol=terms)
    assert np.abs(actual - whole).max() > 1e-3
    nll = -float(jax.nn.log_softmax(expected)[np.arange(2), labels].mean())
    assert loss == pytest.approx(nll, rel=2e-2 if terms > 1e-3 else 1e-5)


@jax.custom_jvp
def squared(x):
    return x * x


@squared.defjvp
def _(primals, tangents):
    return squared(*primals), 2 * primals[0] * tangents[0]


class Hidden(nn.Module):
    """A convolution within a function that has its own derivative."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.normal(), (3, 3, 3, 4))

        @jax.custom_jvp
        def convolve(x, kernel):
            return jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )

        convolve.defjvp(lambda primals, tangents: jax.jvp(squared, primals[:1], tangents[:1]))
        return convolve(x, kernel)


class ChannelsFirst(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("w", nn.initializers.normal(), (4, 3, 3, 3))
        return jax.lax.conv_general_dilated(
            x.transpose(0, 3, 1, 2), kernel, (1, 1), "SAME",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        ).mean((2, 3))  # fmt: skip


class Integers(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = self.param("w", nn.initializers.ones, (3, 3, 3, 4)).astype(jnp.int8)
        return jax.lax.conv_general_dilated(
            x.astype(jnp.int8), kernel, (1, 1), "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"), preferred_element_type=jnp.int32,
        ).astype(jnp.float32)  # fmt: skip


class Chosen(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Conv(3, (3, 3), name="one")
        positive = x.sum() > 0
        return nn.cond(positive, lambda m, x: m(x), lambda m, x: x + m(x), layer, x)


LOOP = "it runs in a loop, a branch or a function with a custom gradient"
REFUSED: dict[str, Any] = {
    "local": (Net(lambda x: nn.ConvLocal(4, (3, 3))(x)), "its weights are constants"),
    "dilated": (conv(kernel_dilation=2), "it is dilated or transposed"),
    "transposed": (
        Net(lambda x: nn.ConvTranspose(4, (3, 3), strides=(2, 2))(x)),
        "it is dilated or transposed",
    ),
    "1-D": (Net(lambda x: nn.Conv(4, (3,))(x)), "it has 1 spatial axes; expected 2"),
    "3-D": (Net(lambda x: nn.Conv(4, (3, 3, 1))(x[..., None, :])), "it has 3 spatial axes"),
    "channels first": (ChannelsFirst(), "its channels do not come last"),
    "integers": (Integers(), "it convolves int8; expected floating-point values"),
    "scan": (
        Net(
            lambda x: nn.scan(
                Carried, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
            )()(x, None)[0]
        ),
        LOOP,
    ),
    "branch": (Chosen(), LOOP),
    "own derivative": (Hidden(), LOOP),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_convolutions_are_listed_and_refused(name, key):
    model, reason = REFUSED[name]
    x = jnp.zeros((2, *SHAPE))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(1), x))
    layer = conv_layers(model, variables, SHAPE)[-1]
    assert not layer.perforable
    with pytest.raises(UserError, match=rf"{layer.name} cannot be perforated: {reason}.*leave it"):
        make_plan(key, (layer,), {layer.name: 0.5})


class Graph(nnx.Module):
    """NNX network with batch normalisation, a list, a shared layer and dropout."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.blocks = nnx.List([nnx.Conv(4, 4, (3, 3), use_bias=False, rngs=rngs)])
        self.repeated = self.blocks[0]
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, copy=lambda name, y: y):
        x = nnx.relu(self.norm(copy("stem", self.stem(x))))
        x = nnx.relu(copy("blocks/0", self.blocks[0](x)))
        x = self.dropout(copy("blocks/0#2", self.repeated(x)))
        return self.head(nnx.max_pool(x, (2, 2), (2, 2)).mean((1, 2)))


def test_nnx_modules_are_networks_too(key):
    model = Graph(nnx.Rngs(0))
    model.eval()
    x = jax.random.normal(jax.random.key(4), (2, *SHAPE))
    labels = np.array([0, 2])
    plan, layers = plan_of_all(model, None, key)
    assert [layer.name for layer in layers] == ["stem", "blocks/0", "blocks/0#2"]
    perforated = perforate(model, None, plan, image_shape=SHAPE)

    def copy(name, y):
        return copied(y, plan.layers[name])

    with jax.numpy_rank_promotion("allow"):
        state = nnx.state(model)
        expected = model(x, copy)
        for variables in (state, None, nnx.state(model, nnx.Param)):
            actual = jax.jit(lambda v, x: perforated.apply(v, x))(variables, x)
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        # A state other than the module's own, and its gradient.
        larger = jax.tree.map(lambda leaf: 2 * leaf, nnx.state(model, nnx.Param))
        loss = lambda params: perforated.apply(params, x).sum()  # noqa: E731
        gradient = jax.jit(jax.grad(loss))(larger)
        nnx.update(model, larger)
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def by_hand(params):
            return nnx.merge(graph, params, rest)(x, copy).sum()

        for a, b in zip(
            jax.tree.leaves(gradient),
            jax.tree.leaves(jax.jit(jax.grad(by_hand))(params)),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        # The other functions of the package.
        losses = FilledLoss(
            model, None, sizes={n.name: n.output_size for n in layers},
            images=np.asarray(x), labels=labels,
        )  # fmt: skip
        loss = losses.of({n: m.nearest for n, m in plan.layers.items()})
        nll = -jax.nn.log_softmax(model(x, copy))[np.arange(2), labels].mean()
        assert loss == pytest.approx(float(nll), rel=1e-5)
        impact = average_impact(model, None, x, jnp.asarray(labels), plan=plan)
        assert not impact["stem"][~plan.layers["stem"].mask].any()
        assert activation_bytes(model, None, SHAPE, plan).stored > 0
        assert plan_macs(layers, plan) < plan_macs(layers)
        # Training mode is the module's; the new state is returned.
        model.train()
        before = np.asarray(model.norm.mean[...])
        _, new = perforated.apply(None, x, mutable=True)
        assert np.abs(np.asarray(new["norm"]["mean"][...]) - before).max() > 1e-4
        np.testing.assert_array_equal(model.norm.mean[...], before)
        with pytest.raises(UserError, match="rngs is given for an NNX module"):
            perforated.apply(None, x, rngs={"dropout": jax.random.key(0)})


class Wide(nn.Module):
    """A call with an argument that has no default."""

    @nn.compact
    def __call__(self, image, width, *, train=False):
        return nn.Conv(4, (3, 3))(image * width).mean((1, 2))


def test_arguments_of_calls_are_completed_or_named(key):
    model, x = Wide(), np.ones((1, *SHAPE), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x, 2.0)
    with pytest.raises(UserError, match=r"Wide.__call__ needs the argument 'width'.*adapt_network"):
        conv_layers(model, variables, SHAPE)
    network = adapt_network(model, width=2.0)
    plan, _ = plan_of_all(network, variables, key)
    perforated = perforate(network, variables, plan)
    expected = oracle(model, variables, x, plan, width=2.0)
    np.testing.assert_allclose(perforated.apply(variables, x), expected, rtol=1e-5)
    np.testing.assert_allclose(
        perforated.apply(variables, x, width=4.0), oracle(model, variables, x, plan, width=4.0),
        rtol=1e-5,
    )  # fmt: skip
    double = perforated.apply(variables, x.astype(np.float64))
    np.testing.assert_array_equal(double, perforated.apply(variables, x))
    with pytest.raises(UserError, match=r"no argument 'depth'; expected width, train"):
        perforated.apply(variables, x, depth=3)
    with pytest.raises(UserError, match=r"x has shape \(7, 9, 3\); expected images \[N, H, W, C\]"):
        perforated.apply(variables, x[0])
    with pytest.raises(UserError, match=r"image_shape is \(7, 9\); expected \(H, W, C\)"):
        conv_layers(network, variables, (7, 9))
    plain = ACCEPTED["without a bias"]
    with pytest.raises(UserError, match=r"train is True, but Net.__call__ has no argument for it"):
        perforate(plain, {}, plan).apply(plain.init(jax.random.key(0), x), x, True)
    with pytest.raises(UserError, match=r"model is function; expected a flax.linen module"):
        conv_layers(conv, variables, SHAPE)


def test_training_mode_is_passed_under_the_networks_own_name(key):
    model, x = Dropping(), jnp.ones((2, *SHAPE))
    variables = model.init(jax.random.key(0), x, True)
    plan, _ = plan_of_all(model, variables, key)
    perforated, rngs = perforate(model, variables, plan), {"dropout": jax.random.key(3)}
    expected = oracle(model, variables, x, plan, deterministic=False, rngs=rngs)
    np.testing.assert_allclose(perforated.apply(variables, x, True, rngs=rngs), expected, rtol=1e-5)
    tested = oracle(model, variables, x, plan, deterministic=True)
    np.testing.assert_allclose(perforated.apply(variables, x), tested, rtol=1e-5)
    assert np.abs(tested - expected).max() > 1e-3
