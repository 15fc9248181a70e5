"""Features at named layers, and their means in one pass: loops, resumption, linear heads."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.ensembling import crop_views, predict_view, unchanged_views
from adaptive_nets.ensembling.embeddings import average_features, interpolate
from adaptive_nets.ensembling.features import layer_names, linear_head, make_feature_fn
from adaptive_nets.models import create_model
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.shapes import abstract_variables

SHAPE = (8, 7, 3)
PIXELS = InputNormalisation(
    255.0,
    np.array([0.4, 0.5, 0.3], np.float32).reshape(1, 1, 3),
    np.array([4.0, 5.0, 2.0], np.float32).reshape(1, 1, 3),
)


class Small(nn.Module):
    """Two convolutions, one of them within a block, batch normalisation, a dense classifier."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="bn")(x))
        x = Block(name="block")(x)
        return nn.Dense(5, name="head")(nn.relu(x).mean((1, 2)))


class Block(nn.Module):
    """A convolution added to its input."""

    @nn.compact
    def __call__(self, x):
        return x + nn.Conv(4, (3, 3), name="conv")(x)


class Convolutional(nn.Module):
    """A classifier that is a convolution, as in Network in Network."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Conv(5, (1, 1), name="last")(nn.relu(nn.Conv(4, (3, 3))(x))).mean((1, 2))


def initialised(module: nn.Module, key):
    """Variables whose statistics of batch normalisation are not those of initialisation."""
    variables = jax.jit(module.init)(key, jnp.zeros((1, *SHAPE)))
    return jax.tree.map(lambda leaf: leaf + 0.1, variables)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (11, *SHAPE)).astype(np.uint8)


def by_hand(module, variables, images, path):
    """Mean over space of a layer's output, from what linen captures."""
    inputs = PIXELS.apply(images)
    capture = functools.partial(module.apply, capture_intermediates=True, mutable="intermediates")
    _, state = jax.jit(capture)(variables, inputs)
    found = state["intermediates"]
    for name in path:
        found = found[name]
    output = np.asarray(found["__call__"][0], np.float64)
    return output.mean((1, 2)) if output.ndim == 4 else output


@pytest.mark.parametrize("layer", ["stem", "bn", "block", "block/conv", "head"])
def test_features_of_a_layer_are_its_output_averaged_over_space(layer, key, images):
    module = Small()
    variables = initialised(module, key)
    features = make_feature_fn(module, variables, PIXELS, image_shape=SHAPE, layer=layer)
    found = features(jnp.asarray(images, jnp.float32))
    assert found.dtype == jnp.float32
    close(found, by_hand(module, variables, images, layer.split("/")), terms=1000)


@pytest.mark.parametrize("module", [Small(), Convolutional()], ids=lambda m: type(m).__name__)
def test_pooled_features_under_the_last_layer_are_the_logits(module, key, images):
    variables = initialised(module, key)
    features = make_feature_fn(module, variables, PIXELS, image_shape=SHAPE)
    found = np.asarray(features(jnp.asarray(images, jnp.float32)), np.float64)
    assert found.shape == (11, 4)
    layer = variables["params"]["head" if isinstance(module, Small) else "last"]
    logits = found @ np.asarray(layer["kernel"]).reshape(4, 5) + np.asarray(layer["bias"])
    close(logits, jax.jit(module.apply)(variables, PIXELS.apply(images)), terms=1000)


def test_the_head_of_a_network_is_its_classifier(key, images):
    module = Small()
    variables = initialised(module, key)
    features = make_feature_fn(module, variables, PIXELS, image_shape=SHAPE)
    head = linear_head(module, variables, image_shape=SHAPE)
    found = head.logits(np.asarray(features(jnp.asarray(images, jnp.float32))))
    close(found, jax.jit(module.apply)(variables, PIXELS.apply(images)), terms=1000)
    np.testing.assert_allclose(np.exp(head.log_probs(np.zeros((2, 4)))).sum(1), 1, rtol=1e-12)


def test_the_mean_embedding_under_a_linear_head_has_the_mean_of_the_logits(key, images):
    """The identity of mean embeddings, from pixels on."""
    module = Small()
    variables = initialised(module, key)
    features = make_feature_fn(module, variables, PIXELS, image_shape=SHAPE)
    head = linear_head(module, variables, image_shape=SHAPE)
    logits = make_feature_fn(module, variables, PIXELS, image_shape=SHAPE, layer="head")
    views = crop_views(2)
    mean = average_features(features, images, views, counts=(6,), seed=3)[6]
    of_views = np.mean([predict_view(logits, images, views, s, seed=3) for s in range(6)], axis=0)
    np.testing.assert_allclose(head.logits(mean), of_views, atol=1e-4)


def test_layers_of_a_residual_network_and_of_a_scan():
    names = {}
    for scan in (False, True):
        module = create_model("resnet20_cifar10", scan_units=scan)
        shapes = abstract_variables(module, (32, 32, 3))
        variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        names[scan] = layer_names(module, variables, (32, 32, 3))
        features = make_feature_fn(module, variables, PIXELS, image_shape=(32, 32, 3))
        found = jax.eval_shape(features, jnp.ones((2, 32, 32, 3)))
        assert (found.shape, found.dtype) == ((2, 64), jnp.float32)
    assert {"conv1", "layer3_2", "layer3_2/conv2", "linear"} <= set(names[False])
    assert "layer3_2" not in names[True]
    assert "layer3_0/conv2" in names[True]


def test_streamed_means_are_those_of_all_views(key, images):
    module = Small()
    features = make_feature_fn(module, initialised(module, key), PIXELS, image_shape=SHAPE)
    views = crop_views(2)
    seen = {}
    found = average_features(
        features, images, views, counts=(1, 2, 5), seed=4, batch_size=4,
        after_view=lambda number, values: seen.update({number: values}),
    )  # fmt: skip
    every = np.stack(
        [predict_view(features, images, views, s, seed=4, batch_size=4) for s in range(5)]
    ).astype(np.float64)
    np.testing.assert_array_equal([seen[s] for s in range(5)], every)
    assert list(found) == [1, 2, 5]
    for count, mean in found.items():
        assert mean.dtype == np.float32
        close(mean, every[:count].mean(0), terms=1)
    assert np.abs(found[5] - found[1]).max() > 1e-3


def test_an_interrupted_mean_resumes_from_its_store(key, images, tmp_path, complains):
    module = Small()
    features = make_feature_fn(module, initialised(module, key), PIXELS, image_shape=SHAPE)
    views, store = crop_views(2), tmp_path / "means.npz"
    whole = average_features(features, images, views, counts=(1, 2, 4))
    options = {"store": store, "identity": {"network": "a"}}
    average_features(features, images, views, counts=(1, 2), **options)
    calls = []

    def counting(images):
        calls.append(len(images))
        return features(images)

    found = average_features(counting, images, views, counts=(1, 2, 4), **options)
    assert len(calls) == 2
    for count, mean in whole.items():
        np.testing.assert_array_equal(found[count], mean)
    average_features(counting, images, views, counts=(1, 4), **options)
    assert len(calls) == 2
    other = {"store": store, "identity": {"network": "b"}}
    complains(
        lambda: average_features(features, images, views, counts=(1,), **other),
        store, "another network",
    )  # fmt: skip
    complains(
        lambda: average_features(features, images, views, counts=(3, 4), **options),
        "not the average of 3",
    )


def test_interpolation_ends_at_both_embeddings(rng):
    first, second = rng.normal(size=(2, 5, 3))
    np.testing.assert_array_equal(interpolate(first, second, 0.0), first)
    np.testing.assert_array_equal(interpolate(first, second, 1.0), second)
    np.testing.assert_allclose(interpolate(first, second, 0.25), 0.75 * first + 0.25 * second)


def test_bad_input_is_one_line(key, images, complains):
    module = Small()
    variables = initialised(module, key)

    def build(layer):
        return make_feature_fn(module, variables, PIXELS, image_shape=SHAPE, layer=layer)

    complains(lambda: build("block/cnv"), "layer is 'block/cnv'", "did you mean 'block/conv'?")
    complains(lambda: build(""), "layer is ''", "expected 'pooled' or a layer")
    features = build("pooled")
    for counts in ((), (0,), (2, 1), (1, 1)):
        complains(
            lambda counts=counts: average_features(
                features, images, unchanged_views, counts=counts
            ),
            "views",
        )  # fmt: skip
    complains(lambda: average_features(features, images[:0], unchanged_views, counts=(1,)), "empty")
    last = Convolutional()
    complains(
        lambda: linear_head(last, initialised(last, key), image_shape=SHAPE),
        "'last'", "expected a dense layer",
    )  # fmt: skip
    head = linear_head(module, variables, image_shape=SHAPE)
    complains(lambda: head.logits(np.zeros((2, 3))), "3 values", "expected 4")
    complains(lambda: interpolate(np.zeros(2), np.zeros(3), 0.5), "shape (3,)", "expected (2,)")
