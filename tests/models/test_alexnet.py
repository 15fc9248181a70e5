"""AlexNet in its forms."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_trace import by_type, dropout_rates, parameter_shapes, trace
from numpy_layers import pool, relu
from tolerances import close

import adaptive_nets as an
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
AT_227 = (227, 227, 3)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("alexnet", 61_100_840, 714_188_480),
        ("alexnet_2012", 60_965_224, 724_406_816),
        ("bvlc_alexnet", 60_965_224, 724_406_816),
        ("caffenet", 60_965_224, 724_406_816),
        ("alexnet_2012_single_stream", 62_378_344, 1_135_256_096),
    ],
)
def test_counts(name, params, macs):
    assert an.count_params(name) == params
    assert an.count_macs(name) == macs


def test_parameters_by_layer_of_two_groups():
    shapes = parameter_shapes(an.create_model("alexnet_2012"), AT_227)
    counts = {
        "conv1": 34_944,
        "conv2": 307_456,
        "conv3": 885_120,
        "conv4": 663_936,
        "conv5": 442_624,
        "fc6": 37_752_832,
        "fc7": 16_781_312,
        "fc8": 4_097_000,
    }
    made = {
        name: sum(int(np.prod(s)) for n, s in shapes.items() if n.startswith(f"{name}/"))
        for name in counts
    }
    assert made == counts
    assert len(shapes) == 2 * len(counts)


def test_maps_of_2012():
    calls, _ = trace(an.create_model("alexnet_2012"), AT_227)
    sizes = [(call.x[1:], call.y[1:]) for call in by_type(calls, nn.Conv)]
    assert sizes == [
        ((227, 227, 3), (55, 55, 96)),
        ((27, 27, 96), (27, 27, 256)),
        ((13, 13, 256), (13, 13, 384)),
        ((13, 13, 384), (13, 13, 384)),
        ((13, 13, 384), (13, 13, 256)),
    ]
    groups = [call.layer.feature_group_count for call in by_type(calls, nn.Conv)]
    assert groups == [1, 2, 1, 2, 2]


def test_torchvision_names_and_maps():
    model = an.create_model("alexnet")
    assert set(parameter_shapes(model, (224, 224, 3))) == {
        f"{layer}/{kind}"
        for layer in (
            *(f"features_{i}" for i in (0, 3, 6, 8, 10)),
            *(f"classifier_{i}" for i in (1, 4, 6)),
        )
        for kind in ("kernel", "bias")
    }
    calls, _ = trace(model, (224, 224, 3))
    maps = [call.y[1:] for call in by_type(calls, nn.Conv)]
    assert maps == [(55, 55, 64), (27, 27, 192), (13, 13, 384), (13, 13, 256), (13, 13, 256)]
    # Another size of image is averaged onto the same 6x6.
    calls, _ = trace(model, (161, 200, 3))
    assert by_type(calls, nn.Dense)[0].x == (1, 9216)


@pytest.mark.parametrize(
    ("name", "inputs"), [("alexnet_2012", (4096, 4096)), ("alexnet", (9216, 4096))]
)
def test_dropout_of_a_half_twice(name, inputs):
    model = an.create_model(name)
    calls, _ = trace(model, AT_227, train=True)
    assert dropout_rates(calls) == [0.5, 0.5]
    assert tuple(call.x[1] for call in by_type(calls, nn.Dropout)) == inputs
    calls, _ = trace(an.create_model(name, dropout_rate=0.2), AT_227, train=True)
    assert dropout_rates(calls) == [0.2, 0.2]


@pytest.fixture(scope="module")
def variables_2012():
    # The smallest images that leave a map of 1x1.
    model = an.create_model("alexnet_2012", num_classes=3)
    return jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, 67, 67, 3))))()


@pytest.mark.slow
def test_initial_values_of_the_paper(variables_2012):
    for name, layer in variables_2012["params"].items():
        bias = 1.0 if name in {"conv2", "conv4", "conv5", "fc6", "fc7"} else 0.0
        np.testing.assert_array_equal(layer["bias"], bias)
        kernel = np.asarray(layer["kernel"])
        # Four standard errors of a standard deviation and of a mean.
        assert abs(np.std(kernel) / 0.01 - 1) < 4 / np.sqrt(2 * kernel.size)
        assert abs(np.mean(kernel)) < 4 * 0.01 / np.sqrt(kernel.size)


def normalised(x, *, alpha, k):
    energy = np.zeros_like(x)
    for i in range(x.shape[-1]):
        energy[..., i] = np.sum(x[..., max(0, i - 2) : i + 3] ** 2, axis=-1)
    return x / (k + alpha * energy) ** 0.75


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, lambda x: pool(normalised(x, alpha=1e-4, k=2), 3, 2)),
        (
            {"response_norm": "caffe"},
            lambda x: pool(normalised(x, alpha=1e-4 / 5, k=1), 3, 2),
        ),
        (
            {"response_norm": "caffe", "order": "pool_norm"},
            lambda x: normalised(pool(x, 3, 2), alpha=1e-4 / 5, k=1),
        ),
    ],
)
def test_normalisation_and_pooling(variables_2012, options, expected):
    # Bright images, so that the energy matters.
    x = 1e3 * jax.random.normal(jax.random.key(1), (1, 67, 67, 3))
    seen = {}

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        seen[context.module.name] = (args[0], output) if args else None
        return output

    model = an.create_model("alexnet_2012", num_classes=3, **options)
    with nn.intercept_methods(record):
        model.apply(variables_2012, x)
    after_conv1 = relu(np.asarray(seen["conv1"][1], np.float64))
    assert np.max(1e-4 / 5 * after_conv1**2) > 1
    close(seen["conv2"][0], expected(after_conv1), terms=5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"response_norm": "Caffe"}, "response_norm is 'Caffe'; expected 'paper' or 'caffe'"),
        ({"order": "pool"}, "order is 'pool'; expected 'norm_pool' or 'pool_norm'"),
    ],
)
def test_unknown_options_are_named(option, message):
    with pytest.raises(UserError, match=message):
        an.create_model("alexnet_2012", **option)
