"""The quick gradient is XLA's gradient."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from tolerances import close

from adaptive_nets.training import conv_gradient
from adaptive_nets.training.conv_gradient import conv_general_dilated, is_worthwhile

NHWC = ("NHWC", "HWIO", "NHWC")


@pytest.fixture
def always(monkeypatch):
    """Every convolution that is covered takes the quick way, whatever its size."""
    monkeypatch.setattr(conv_gradient, "is_worthwhile", lambda *_: True)


def gradients(convolve, x, w, strides, padding, **options):
    def loss(x, w):
        return jnp.sum(convolve(x, w, strides, padding, dimension_numbers=NHWC, **options) ** 2)

    return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, w)


@pytest.mark.parametrize(
    ("window", "strides", "padding", "options"),
    [
        ((3, 3), (1, 1), "SAME", {}),
        ((1, 1), (1, 1), "VALID", {}),
        ((2, 3), (1, 1), ((0, 1), (2, 0)), {}),
        ((5, 3), (1, 1), "SAME", {}),
        ((3, 3), (2, 2), "SAME", {}),  # left to XLA, as the next two
        ((3, 3), (1, 1), "SAME", {"rhs_dilation": (2, 1)}),
        ((3, 3), (1, 1), "SAME", {"feature_group_count": 2}),
    ],
)
def test_values_and_gradients(always, rng, window, strides, padding, options):
    groups = options.get("feature_group_count", 1)
    x = jnp.asarray(rng.normal(size=(3, 7, 6, 4)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(*window, 4 // groups, 2)), jnp.float32)
    ours = gradients(conv_general_dilated, x, w, strides, padding, **options)
    xla = gradients(lax.conv_general_dilated, x, w, strides, padding, **options)
    jax.tree.map(lambda a, b: close(a, b, terms=1000), ours, xla)


def test_an_empty_batch_has_no_gradient(always):
    x, w = jnp.zeros((0, 4, 4, 2)), jnp.ones((3, 3, 2, 5))
    _, (dx, dw) = gradients(conv_general_dilated, x, w, (1, 1), "SAME")
    assert dx.shape == x.shape
    assert not np.any(np.asarray(dw))


def test_choice_by_shape():
    assert is_worthwhile((1, 8, 8, 4), (1, 1))
    assert is_worthwhile((128, 32, 32, 192), (5, 5))
    assert not is_worthwhile((128, 32, 32, 16), (3, 3))
    assert not is_worthwhile((8, 112, 112, 64), (3, 3))


def test_every_convolution_of_a_network_takes_it(always, rng):
    class Two(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Conv(2, (1, 1), name="b")(nn.Conv(3, (3, 3), name="a")(x))

    model, x = Two(), jnp.asarray(rng.normal(size=(2, 5, 5, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x)

    def gradient(x):
        return jax.grad(lambda v: jnp.sum(jnp.sin(model.apply(v, x))))(variables)

    plain = gradient(x)
    with nn.intercept_methods(conv_gradient.intercept_conv_gradients):
        traced = str(jax.make_jaxpr(lambda x: gradient(x))(x))
        quick = gradient(x)
    assert traced.count("dot_general[") == 2  # the gradients for both layers' weights
    jax.tree.map(lambda a, b: close(a, b, terms=1000), quick, plain)
