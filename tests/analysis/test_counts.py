"""Parameters and multiply-accumulates against formulas written out here."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import adaptive_nets as an
from adaptive_nets.analysis import count_macs, count_params, parameter_table
from adaptive_nets.layers import SparseConv

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


def test_a_module_needs_an_input_size():
    with pytest.raises(ValueError, match="input_shape is needed"):
        count_macs(nn.Dense(3))


def test_the_table_lists_every_parameter_and_their_total():
    params = {"fc1": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    table = parameter_table(params, title="net")
    assert list(table.columns[0].cells) == ["fc1/bias", "fc1/kernel", "total"]
    assert list(table.columns[2].cells)[-1] == "16"
