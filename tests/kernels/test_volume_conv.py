"""Convolutions of volumes on a CPU are JAX's, with all their derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from tolerances import close

from kernels.dense_conv import conv_general_dilated, volume

pytestmark = pytest.mark.core
NDHWC = ("NDHWC", "DHWIO", "NDHWC")

# Depth, window, strides, padding, options, input channels, outputs.
CASES = {
    "code form": (5, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, {}, 2, 3),
    "text form": (7, (6, 3, 3), (1, 1, 1), ((0, 0), (1, 1), (1, 1)), {}, 1, 4),
    "window of the whole depth": (4, (4, 3, 2), (1, 1, 1), "VALID", {}, 3, 2),
    "uneven padding": (4, (3, 2, 3), (1, 1, 1), ((2, 1), (0, 1), (2, 0)), {}, 2, 3),
    "negative padding of the depth": (6, (3, 3, 3), (1, 1, 1), ((-1, 1),) * 3, {}, 2, 2),
    "more padding than window": (2, (2, 1, 1), (1, 1, 1), ((3, 2), (0, 0), (0, 0)), {}, 2, 2),
    "strided maps": (4, (3, 3, 3), (1, 2, 3), "SAME", {}, 2, 3),
    "strided depth": (5, (3, 3, 3), (2, 1, 1), "SAME", {}, 2, 3),
    "dilated maps": (4, (2, 3, 2), (1, 1, 1), "SAME", {"rhs_dilation": (1, 2, 1)}, 2, 3),
    "dilated depth": (7, (2, 3, 2), (1, 1, 1), "SAME", {"rhs_dilation": (3, 1, 1)}, 2, 3),
    "transposed maps": (4, (3, 3, 3), (1, 1, 1), ((1, 1),) * 3, {"lhs_dilation": (1, 2, 2)}, 2, 3),
    "groups": (4, (3, 3, 3), (1, 1, 1), "SAME", {"feature_group_count": 2}, 4, 6),
}


def operands(rng, case, images=3):
    depth, window, strides, padding, options, channels, outputs = CASES[case]
    groups = options.get("feature_group_count", 1)
    x = jnp.asarray(rng.normal(size=(images, depth, 6, 7, channels)), jnp.float32)
    w = jnp.asarray(rng.normal(size=(*window, channels // groups, outputs)), jnp.float32)

    def of(convolve):
        return lambda x, w: convolve(x, w, strides, padding, dimension_numbers=NDHWC, **options)

    return x, w, of(conv_general_dilated), of(lax.conv_general_dilated)


def loss(convolve):
    return lambda x, w: jnp.sum(jnp.sin(convolve(x, w)))


@pytest.mark.parametrize("images", [0, 1, 3])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(rng, case, images):
    x, w, ours, theirs = operands(rng, case, images)
    close(jax.jit(ours)(x, w), theirs(x, w), terms=w[..., 0].size)
    found, expected = (jax.jit(jax.grad(loss(f), argnums=(0, 1)))(x, w) for f in (ours, theirs))
    for ours_, theirs_ in zip(found, expected, strict=True):
        close(ours_, theirs_, terms=w.size * x.size // max(1, images), gradient=True)


def test_second_derivatives_and_vmap(rng):
    x, w, ours, theirs = operands(rng, "code form")

    def second(convolve):
        inner = jax.grad(loss(convolve), argnums=1)
        return jax.jit(jax.grad(lambda x, w: jnp.sum(jnp.sin(inner(x, w)))))(x, w)

    close(second(ours), second(theirs), terms=w.size * x.size, gradient=True)
    xs = jnp.stack([x, 2 * x])
    close(jax.vmap(ours, (0, None))(xs, w), jax.vmap(theirs, (0, None))(xs, w), terms=w.size)


def convolutions_of(case, rng, *, gradient):
    x, w, ours, _ = operands(rng, case)
    function = jax.grad(loss(ours), argnums=(0, 1)) if gradient else ours
    text = jax.jit(function).lower(x, w).as_text()
    return [line for line in text.splitlines() if "stablehlo.convolution" in line]


@pytest.mark.parametrize("gradient", [False, True])
def test_a_cpu_program_convolves_images(rng, gradient):
    for case, volumes in (("code form", False), ("strided depth", True)):
        lines = convolutions_of(case, rng, gradient=gradient)
        assert lines
        assert any("[b, 0, 1, 2, f]" in line for line in lines) == volumes


def test_many_channels_stay_a_convolution_of_volumes():
    x = jax.ShapeDtypeStruct((2, 16, 4, 4, 64), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 3, 64, 64), jnp.float32)
    options = {
        "window_strides": (1, 1, 1), "padding": ((1, 1),) * 3, "lhs_dilation": (1, 1, 1),
        "rhs_dilation": (1, 1, 1), "feature_group_count": 1, "batch_group_count": 1,
        "dimension_numbers": lax.conv_dimension_numbers(x.shape, w.shape, NDHWC),
    }  # fmt: skip
    assert not volume.is_worthwhile(x, w, **options)
    few = jax.ShapeDtypeStruct((2, 16, 4, 4, 4), jnp.float32)
    narrow = jax.ShapeDtypeStruct((3, 3, 3, 4, 4), jnp.float32)
    assert volume.is_worthwhile(few, narrow, **options)
