"""Static hypernetworks: published sizes, cost of generation, gradients."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

import adaptive_nets as an
from adaptive_nets.layers import HyperKernels
from adaptive_nets.models.hypernet import HyperWideResNet, unit_channels
from adaptive_nets.models.wide_resnet import WideResNet

pytestmark = pytest.mark.core


def params_of(model, shape):
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)["params"]


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_mnist_kernel_of_12544_weights_comes_from_4244():
    params = params_of(an.create_model("hypernet_mnist"), (28, 28, 1))
    assert size(params["hypernet"]) == 4 + 4 * 5 * 16 + 7 * 16 * 7 * 5 == 4_244
    plain = params_of(an.create_model("hypernet_mnist_baseline"), (28, 28, 1))
    assert size(plain["conv2"]["kernel"]) == 12_544
    assert size(plain) - size(params) == 12_544 - 4_244
    assert an.count_macs("hypernet_mnist") == 28**2 * 49 * 16 + 14**2 * 49 * 256 + 7840


@pytest.mark.parametrize(
    ("widening", "embeddings", "padded", "projected", "plain"),
    [
        (1, 242, 96_570, 97_770, (562_730, 563_930)),
        (2, 966, 147_578, 155_626, (2_235_498, 2_243_546)),
    ],
)
def test_wide_residual_networks(widening, embeddings, padded, projected, plain):
    for kind, bias, expected, baseline in (
        ("zeropad", True, padded, plain[0]),
        ("projection", False, projected, plain[1]),
    ):
        model = an.create_model(f"hyper_wrn40_{widening}_cifar10", shortcut=kind, use_bias=bias)
        params = params_of(model, (32, 32, 3))
        assert params["hypernet"]["embeddings"].shape == (embeddings, 64)
        assert size(params["hypernet"]) == 75_920 + 64 * embeddings
        assert size(params) == expected
        kernels = sum(9 * inputs * outputs for inputs, outputs in unit_channels(40, widening))
        assert kernels == 2304 * embeddings
        assert size(params["net"]) + kernels == baseline


def test_36_kernels_are_generated():
    channels = unit_channels(40, 2)
    assert len(channels) == 36
    assert channels[:3] == ((16, 32), (32, 32), (32, 32))
    assert channels[12] == (32, 64)
    assert channels[24:26] == ((64, 128), (128, 128))


@pytest.fixture(scope="module")
def shallow():
    """One unit a group: six generated kernels."""
    model = HyperWideResNet(depth=10, embedding_size=8)
    images = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    return model, jax.jit(model.init)(jax.random.key(0), images), images


def test_is_the_wide_residual_network_of_the_kernels_it_generates(shallow):
    model, variables, images = shallow
    params = variables["params"]
    hypernet = HyperKernels(unit_channels(10, 1), (16, 16), (3, 3), 8)
    kernels = iter(hypernet.apply({"params": params["hypernet"]}))
    net = {name: dict(leaf) for name, leaf in params["net"].items()}
    for group in (1, 2, 3):
        unit = net[f"block{group}_layer_0"]
        for conv in ("conv1", "conv2"):
            unit[conv] = {**unit[conv], "kernel": next(kernels)}
    plain = WideResNet(10, 1, shortcut="zeropad", use_bias=True)
    statistics = variables["batch_stats"]["net"]
    expected = jax.jit(plain.apply)({"params": net, "batch_stats": statistics}, images)
    close(jax.jit(model.apply)(variables, images), expected, terms=1000)


def products(jaxpr):
    """Multiply-accumulates of the matrix products of a program, and their number."""
    total = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            sums = math.prod(shape[axis] for axis in contracted)
            total.append(math.prod(equation.outvars[0].aval.shape) * sums)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += products(inner)
    return total


@pytest.mark.parametrize("batch", [1, 64])
def test_kernels_are_generated_in_two_products_whatever_the_batch(batch):
    model = an.create_model("hyper_wrn40_1_cifar10")
    image = jax.ShapeDtypeStruct((batch, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    found = products(jax.make_jaxpr(model.apply)(shapes, image).jaxpr)
    classifier = batch * 64 * 10
    assert sorted(found) == sorted([242 * 64 * 16 * 64, 242 * 16 * 64 * 144, classifier])


def test_generation_is_not_counted_for_each_image():
    assert an.count_macs("hyper_wrn40_1_cifar10") == an.count_macs(
        "wrn40_1_cifar10", shortcut="zeropad"
    )


def test_gradients_reach_every_parameter_without_random_streams(shallow):
    model, variables, images = shallow

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = model.apply(
                {"params": params, "batch_stats": variables["batch_stats"]},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[:, 0])

        return jax.grad(loss)(params)

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(np.asarray(leaf) != 0), path
