"""Parameters and multiply-accumulates against formulas written out here."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import adaptive_nets as an
from adaptive_nets.analysis import count_macs, count_params
from adaptive_nets.analysis.macs import layer_macs
from adaptive_nets.layers import SparseConv
from adaptive_nets.models.char_lm import create_char_model
from adaptive_nets.runtime.pytrees import parameter_table

pytestmark = pytest.mark.core
FC_300 = 784 * 300 + 300 * 100 + 100 * 10
CAFFE_WEIGHTS = 25 * 20 + 25 * 20 * 50 + 800 * 500 + 500 * 10
CAFFE_MACS = 24 * 24 * 25 * 20 + 8 * 8 * 25 * 20 * 50 + 800 * 500 + 500 * 10


def test_the_sheets_weights():
    assert FC_300 == 266_200
    assert CAFFE_WEIGHTS == 430_500


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("lenet_300_100", FC_300 + 410, FC_300),
        ("lenet_300_100_sparse_vd", 2 * FC_300 + 410, FC_300),
        ("lenet5_caffe", CAFFE_WEIGHTS + 580, CAFFE_MACS),
        ("lenet5_caffe_sparse_vd", 2 * CAFFE_WEIGHTS + 580, CAFFE_MACS),
        (
            "mlp_4x1000",
            784 * 1000 + 3 * 1000**2 + 10**4 + 4010,
            784 * 1000 + 3 * 1000**2 + 10**4,
        ),
    ],
)
def test_networks(name, params, macs):
    assert count_params(name) == params
    assert count_macs(name) == macs


def test_overrides_and_input_size_count():
    assert count_params("lenet_300_100", num_classes=3) == FC_300 + 410 - 7 * 101
    assert count_macs("lenet5_caffe", input_shape=(32, 32, 3)) == (
        28 * 28 * 75 * 20 + 10 * 10 * 25 * 20 * 50 + 1250 * 500 + 5000
    )


@pytest.mark.parametrize(
    ("layer", "shape", "macs"),
    [
        (nn.Conv(6, (3, 3)), (8, 8, 4), 8 * 8 * 9 * 4 * 6),
        (nn.Conv(6, (3, 3), strides=2), (7, 9, 4), 4 * 5 * 9 * 4 * 6),
        (nn.Conv(6, (3, 3), feature_group_count=2), (8, 8, 4), 8 * 8 * 9 * 2 * 6),
        (SparseConv(6, kernel_size=(5, 1), padding="VALID"), (8, 8, 4), 4 * 8 * 5 * 4 * 6),
    ],
)
def test_layers_padding_taps_included(layer, shape, macs):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return layer.clone(parent=self, name="layer")(x)

    assert count_macs(Net(), input_shape=shape) == macs


def test_agrees_with_the_compiler_where_nothing_is_padded():
    """The compiler leaves out taps on padding and counts two operations per multiply-accumulate."""
    model = an.create_model("lenet5_caffe")
    image = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
    cost = jax.jit(model.apply).lower(variables, image).compile().cost_analysis()
    assert cost["flops"] == pytest.approx(2 * CAFFE_MACS, rel=0.02)


class Pointwise(nn.Module):
    """Convolutions without padding, one of them grouped, and a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(16, (3, 3), padding="VALID", name="conv1")(x)
        x = nn.Conv(24, (2, 2), strides=2, padding="VALID", feature_group_count=4, name="conv2")(x)
        return nn.Dense(10, name="fc")(x.reshape(x.shape[0], -1))


def test_a_grouped_network_agrees_with_the_compiler_too():
    conv1, conv2, dense = 18 * 18 * 9 * 8 * 16, 9 * 9 * 4 * 4 * 24, 9 * 9 * 24 * 10
    assert count_macs(Pointwise(), input_shape=(20, 20, 8)) == conv1 + conv2 + dense
    image = jax.ShapeDtypeStruct((1, 20, 20, 8), jnp.float32)
    variables = jax.eval_shape(lambda x: Pointwise().init(jax.random.key(0), x), image)
    cost = jax.jit(Pointwise().apply).lower(variables, image).compile().cost_analysis()
    assert cost["flops"] == pytest.approx(2 * (conv1 + conv2 + dense), rel=0.02)


def test_layers_are_listed_in_order_and_add_up():
    macs = layer_macs("lenet5_caffe")
    assert list(macs) == [f"LeNet5Caffe/{n}" for n in ("conv1", "conv2", "fc1", "fc2")]
    assert sum(macs.values()) == count_macs("lenet5_caffe") == CAFFE_MACS


def resnet_cifar_macs(depth):
    """Stem, three stages at 32, 16, 8 pixels, the first convolution of a stage from the last's."""
    units, macs = (depth - 2) // 6, 32 * 32 * 27 * 16
    for side, width, before in ((32, 16, 16), (16, 32, 16), (8, 64, 32)):
        macs += side * side * 9 * (before * width + (2 * units - 1) * width * width)
    return macs + 64 * 10


def vgg_macs(*stages):
    macs, side, before = 0, 224, 3
    for width, repeats in zip((64, 128, 256, 512, 512), stages, strict=True):
        for _ in range(repeats):
            macs += side * side * 9 * before * width
            before = width
        side //= 2
    return macs + 25088 * 4096 + 4096 * 4096 + 4096 * 1000


def densenet_macs(blocks, growth):
    macs, side, channels = 112 * 112 * 49 * 3 * 2 * growth, 56, 2 * growth
    for i, layers in enumerate(blocks):
        for _ in range(layers):
            macs += side * side * (channels * 4 * growth + 9 * 4 * growth * growth)
            channels += growth
        if i + 1 < len(blocks):
            macs += side * side * channels * (channels // 2)
            channels, side = channels // 2, side // 2
    return macs + channels * 1000


def resnet50_macs():
    """The stride is in the 3x3; a stage's first 1x1 works on the larger map."""
    macs, side, before = 112 * 112 * 49 * 3 * 64, 56, 64
    for stage, units in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for unit in range(units):
            macs += side * side * before * width
            side //= 2 if unit == 0 and stage else 1
            macs += side * side * (9 * width * width + width * 4 * width)
            macs += side * side * before * 4 * width if unit == 0 else 0
            before = 4 * width
    return macs + 2048 * 1000


FORMULAS = {
    "resnet20_cifar10": (lambda: resnet_cifar_macs(20), 40_551_040),
    "resnet1202_cifar10": (lambda: resnet_cifar_macs(1202), 2_829_238_912),
    "vgg16": (lambda: vgg_macs(2, 2, 3, 3, 3), None),
    "densenet121": (lambda: densenet_macs((6, 12, 24, 16), 32), None),
    "resnet50": (resnet50_macs, None),
    "lenet5": (lambda: 28**2 * 150 + 100 * 2400 + 48_000 + 10_080 + 840, 416_520),
    # Auxiliary heads are not run at test.
    "googlenet_caffe": (lambda: 1_582_671_872, None),
}


# Those that take seconds to trace; others of large images stand for them.
SLOW = ("densenet121", "googlenet_caffe")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in FORMULAS]
)
def test_networks_by_their_formulas(name):
    formula, stated = FORMULAS[name]
    assert count_macs(name) == formula()
    assert stated in (None, formula())


class Looped(nn.Module):
    """Five equal layers, run in a loop and recomputed in the backward pass."""

    wrap: bool

    @nn.compact
    def __call__(self, x, train=False):
        layer = nn.remat(nn.Dense) if self.wrap else nn.Dense
        loop = nn.scan(
            lambda module, x, _: (module(x), None),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=5,
        )
        return nn.Dense(3, name="last")(loop(layer(7, name="looped"), x, None)[0])


@pytest.mark.parametrize("wrap", [False, True])
def test_the_body_of_a_loop_counts_as_often_as_it_runs(wrap):
    assert count_macs(Looped(wrap), input_shape=(7,)) == 5 * 49 + 21


class Generated(nn.Module):
    """A kernel that is a product of parameters, and a pooling that is a product."""

    @nn.compact
    def __call__(self, x, train=False):
        embedding = self.param("embedding", nn.initializers.ones, (6, 4))
        outputs = self.param("outputs", nn.initializers.ones, (4, 9 * 5))
        kernel = (embedding @ outputs).reshape(3, 3, 6, 5)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        pool = jnp.full((2, 8), 0.25)
        x = jnp.einsum("nhwc,ph->npwc", x, pool)
        scores = jnp.einsum("npwc,npvc->npwv", x, x)
        return jnp.sum(scores, axis=(1, 2))


def test_generated_kernels_poolings_and_products_of_activations():
    convolution, scores = 8 * 8 * 9 * 6 * 5, 2 * 8 * 8 * 5
    assert count_macs(Generated(), input_shape=(8, 8, 6)) == convolution + scores


def test_volumes():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Conv(4, (3, 3, 2), padding="VALID")(x[..., None])

    assert count_macs(Net(), input_shape=(6, 7, 5)) == 4 * 5 * 4 * 18 * 4


def test_the_dearer_branch_of_a_conditional_counts():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            kernel = self.param("kernel", nn.initializers.ones, (5, 5))
            branches = (lambda x: x @ kernel @ kernel, lambda x: x @ kernel)
            return jax.lax.cond(jnp.sum(x) > 0, *branches, x)

    assert count_macs(Net(), input_shape=(5,)) == 50


def test_a_loop_of_unknown_length_is_named():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            kernel = self.param("kernel", nn.initializers.ones, (5, 5))
            return jax.lax.while_loop(lambda x: jnp.sum(x) < 9, lambda x: x @ kernel, x)

    with pytest.raises(NotImplementedError, match="while at Net has no fixed MACs"):
        count_macs(Net(), input_shape=(5,))


def test_a_recurrent_model_counts_for_its_whole_text():
    model = create_char_model("lstm_1000_ptb", vocabulary=11, hidden=6)
    macs = count_macs(model, input_shape=(9,), input_dtype=jnp.int32)
    assert macs == 9 * (4 * 6 * (11 + 6) + 6 * 11)


def test_a_module_needs_an_input_size():
    with pytest.raises(ValueError, match="input_shape is needed"):
        count_macs(nn.Dense(3))


def test_the_table_lists_every_parameter_and_their_total():
    params = {"fc1": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    table = parameter_table(params, title="net")
    assert list(table.columns[0].cells) == ["fc1/bias", "fc1/kernel", "total"]
    assert list(table.columns[2].cells)[-1] == "16"
