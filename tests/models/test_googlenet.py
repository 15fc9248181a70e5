"""GoogLeNet in Caffe's form and in torchvision's."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_trace import by_type, dropout_rates, parameter_shapes, trace
from numpy_layers import conv, pool, relu
from tolerances import close

import adaptive_nets as an
from adaptive_nets.models import ModelOutput, googlenet
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core
SHAPE = (224, 224, 3)
FORMS = ("googlenet", "googlenet_caffe")


@pytest.mark.parametrize(
    ("name", "with_heads", "without", "macs"),
    [
        ("googlenet", 13_004_888, 6_624_904, 1_498_376_192),
        ("googlenet_caffe", 13_378_280, 6_998_552, 1_582_671_872),
    ],
)
def test_counts(name, with_heads, without, macs):
    assert an.count_params(name) == with_heads
    assert an.count_params(name, auxiliary_heads=False) == without
    # At test the auxiliary heads do nothing.
    assert an.count_macs(name, auxiliary_heads=False) == macs
    assert an.count_macs(name) == macs


def test_auxiliary_heads_of_caffe():
    shapes = parameter_shapes(an.create_model("googlenet_caffe"), SHAPE)
    for head, params in (("aux1", 3_188_840), ("aux2", 3_190_888)):
        assert sum(np.prod(s) for n, s in shapes.items() if n.startswith(f"{head}/")) == params
    assert shapes["aux1/conv/conv/kernel"] == (1, 1, 512, 128)
    assert shapes["aux2/conv/conv/kernel"] == (1, 1, 528, 128)
    assert shapes["aux1/fc1/kernel"] == (2048, 1024)


@pytest.mark.parametrize("name", FORMS)
def test_auxiliary_logits_in_training_only(name):
    model = an.create_model(name, num_classes=11)
    _, trained = trace(model, SHAPE, train=True)
    assert isinstance(trained, ModelOutput)
    assert trained.logits.shape == (1, 11)
    assert [logits.shape for logits in trained.auxiliary_logits] == [(1, 11)] * 2
    calls, tested = trace(model, SHAPE)
    assert tested.logits.shape == (1, 11)
    assert not tested.auxiliary_logits
    assert not [call for call in calls if call.name.startswith("aux")]
    bare = an.create_model(name, num_classes=11, auxiliary_heads=False)
    assert not [key for key in parameter_shapes(bare, SHAPE) if key.startswith("aux")]
    _, trained = trace(bare, SHAPE, train=True)
    assert trained.logits.shape == (1, 11)
    assert not trained.auxiliary_logits


@pytest.mark.parametrize(("name", "rate"), [("googlenet", 0.2), ("googlenet_caffe", 0.4)])
def test_dropout(name, rate):
    calls, _ = trace(an.create_model(name), SHAPE, train=True)
    # In the order of the input: before the last layer of each classifier.
    assert dropout_rates(calls) == [0.7, 0.7, rate]
    assert [call.x for call in by_type(calls, nn.Dropout)] == [(1, 1024)] * 3
    changed = an.create_model(name, dropout_rate=0.1, auxiliary_dropout_rate=0.3)
    assert dropout_rates(trace(changed, SHAPE, train=True)[0]) == [0.3, 0.3, 0.1]


@pytest.mark.parametrize("name", FORMS)
def test_blocks(name):
    calls, _ = trace(an.create_model(name), SHAPE, train=True)
    blocks = {
        call.name.removeprefix("inception"): call.y[1:]
        for call in by_type(calls, googlenet.InceptionBlock)
    }
    assert blocks == {
        "3a": (28, 28, 256),
        "3b": (28, 28, 480),
        "4a": (14, 14, 512),
        "4b": (14, 14, 512),
        "4c": (14, 14, 512),
        "4d": (14, 14, 528),
        "4e": (14, 14, 832),
        "5a": (7, 7, 832),
        "5b": (7, 7, 1024),
    }
    heads = {call.name: call.x[1:] for call in by_type(calls, googlenet.AuxiliaryHead)}
    assert heads == {"aux1": (14, 14, 512), "aux2": (14, 14, 528)}
    large = {call.layer.kernel_size for call in by_type(calls, nn.Conv) if "branch3_1" in call.name}
    assert large == {(5, 5) if name == "googlenet_caffe" else (3, 3)}
    norms = by_type(calls, nn.BatchNorm)
    assert len(norms) == (0 if name == "googlenet_caffe" else 57 + 2)
    assert {call.layer.epsilon for call in norms} <= {1e-3}
    biased = {call.layer.use_bias for call in by_type(calls, nn.Conv)}
    assert biased == {name == "googlenet_caffe"}


def test_torchvision_names():
    shapes = parameter_shapes(an.create_model("googlenet"), SHAPE)
    units = ["conv1", "conv2", "conv3", "aux1/conv", "aux2/conv"]
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        branches = ("1", "2_0", "2_1", "3_0", "3_1", "4_1")
        units += [f"inception{block}/branch{branch}" for branch in branches]
    expected = {
        f"{unit}/{kind}" for unit in units for kind in ("conv/kernel", "bn/scale", "bn/bias")
    }
    dense = ("fc", "aux1/fc1", "aux1/fc2", "aux2/fc1", "aux2/fc2")
    expected |= {f"{layer}/{kind}" for layer in dense for kind in ("kernel", "bias")}
    assert set(shapes) == expected


@pytest.mark.parametrize("form", ["caffe", "torchvision"])
def test_a_block_in_float64(rng, form):
    block = googlenet.InceptionBlock((2, (3, 4), (2, 5), 3), form)
    x = rng.normal(size=(2, 6, 7, 4)).astype(np.float32)
    variables = block.init(jax.random.key(0), jnp.asarray(x))
    # Biases, scales and running averages away from where they start.
    variables = jax.tree.map(
        lambda p: p + jnp.asarray(rng.uniform(0.1, 1, p.shape), p.dtype) if p.ndim == 1 else p,
        variables,
    )

    def unit(y, name, pad=0):
        params = variables["params"][name]
        y = conv(y, **params["conv"], pad=pad)
        if form == "torchvision":
            stats, bn = variables["batch_stats"][name]["bn"], params["bn"]
            mean, var, scale, bias = (
                np.asarray(v, np.float64)
                for v in (stats["mean"], stats["var"], bn["scale"], bn["bias"])
            )
            y = (y - mean) / np.sqrt(var + 1e-3) * scale + bias
        return relu(y)

    branches = [
        unit(x, "branch1"),
        unit(unit(x, "branch2_0"), "branch2_1", pad=1),
        unit(unit(x, "branch3_0"), "branch3_1", pad=2 if form == "caffe" else 1),
        unit(pool(x, 3, 1, pad=1), "branch4_1"),
    ]
    close(block.apply(variables, jnp.asarray(x)), np.concatenate(branches, axis=-1), terms=125)


@pytest.mark.parametrize("form", ["caffe", "torchvision"])
def test_an_auxiliary_head_in_float64(rng, form):
    head = googlenet.AuxiliaryHead(num_classes=5, form=form, dropout_rate=0.7)
    x = rng.normal(size=(2, 14, 14, 3)).astype(np.float32)
    variables = head.init(jax.random.key(0), jnp.asarray(x))
    p = variables["params"]
    if form == "caffe":
        y = pool(x, 5, 3, reduce=np.mean)
    else:
        rows = [slice(0, 4), slice(3, 7), slice(7, 11), slice(10, 14)]
        y = np.stack(
            [np.stack([x[:, r, c].mean(axis=(1, 2)) for c in rows], axis=1) for r in rows], axis=1
        )
    y = conv(y, p["conv"]["conv"]["kernel"])
    if form == "torchvision":
        y = y / np.sqrt(1 + 1e-3)
    y = relu(y).reshape(2, -1)
    kernels = {name: np.asarray(p[name]["kernel"], np.float64) for name in ("fc1", "fc2")}
    logits = relu(y @ kernels["fc1"]) @ kernels["fc2"]
    close(head.apply(variables, jnp.asarray(x)), logits, terms=2048)


def test_response_normalisation_is_caffes_alone(monkeypatch):
    seen = []
    original = googlenet.local_response_norm
    monkeypatch.setattr(
        googlenet, "local_response_norm", lambda x: seen.append(x.shape[1:]) or original(x)
    )
    image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
    for name in FORMS:
        model = an.create_model(name, auxiliary_heads=False)
        jax.eval_shape(lambda x, m=model: m.init(jax.random.key(0), x), image)
        expected = [(56, 56, 64), (56, 56, 192)] if name == "googlenet_caffe" else []
        assert seen == expected
        seen.clear()


def test_an_unknown_form_is_named():
    with pytest.raises(UserError, match="form is 'tv'; expected 'caffe' or 'torchvision'"):
        googlenet.GoogLeNet(form=cast(Any, "tv"))
