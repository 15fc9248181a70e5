"""The dense convolution is JAX's, with all its derivatives and transformations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from tolerances import close

from adaptive_nets.layers.convolution import Conv
from kernels.dense_conv import (
    conv_general_dilated,
    grouped,
    input_gradient,
    weight_gradient,
)

pytestmark = pytest.mark.core
NHWC = ("NHWC", "HWIO", "NHWC")

# Window, strides, padding, options, input channels, outputs.
CASES = {
    "plain": ((3, 3), (1, 1), "SAME", {}, 4, 6),
    "pointwise": ((1, 1), (1, 1), "VALID", {}, 4, 6),
    "pointwise, strided": ((1, 1), (2, 3), "SAME", {}, 4, 6),
    "uneven padding": ((2, 3), (1, 1), ((0, 1), (2, 0)), {}, 3, 5),
    "negative padding": ((3, 3), (1, 1), ((-1, 1), (2, -1)), {}, 3, 5),
    "wide padding": ((2, 2), (1, 1), ((3, 2), (2, 4)), {}, 3, 5),
    "strided": ((3, 3), (2, 1), "SAME", {}, 4, 5),
    "large window, strided": ((5, 6), (2, 1), "SAME", {}, 3, 5),
    "large window, two strides": ((7, 5), (2, 3), ((3, 2), (1, 0)), {}, 2, 3),
    "strided, a remainder is not read": ((2, 2), (3, 3), "VALID", {}, 4, 5),
    "dilated": ((3, 2), (1, 1), "SAME", {"rhs_dilation": (2, 1)}, 4, 5),
    "transposed": ((3, 3), (1, 1), ((1, 1), (2, 1)), {"lhs_dilation": (2, 2)}, 4, 5),
    "two groups": ((3, 3), (1, 1), "SAME", {"feature_group_count": 2}, 32, 6),
    "groups of few channels": ((3, 2), (2, 1), "SAME", {"feature_group_count": 6}, 12, 12),
    "odd groups": ((3, 3), (1, 1), "SAME", {"feature_group_count": 3}, 15, 3),
    "depthwise": ((3, 3), (2, 1), "SAME", {"feature_group_count": 5}, 5, 5),
    "two outputs per channel": ((3, 3), (1, 2), "VALID", {"feature_group_count": 5}, 5, 10),
    "three outputs per channel": ((3, 3), (1, 1), "SAME", {"feature_group_count": 4}, 4, 12),
    "groups of images": ((3, 3), (1, 1), "SAME", {"batch_group_count": 2}, 4, 6),
}


def operands(rng, case, images=4, dtype=jnp.float32):
    window, strides, padding, options, channels, outputs = CASES[case]
    depth = channels // options.get("feature_group_count", 1)
    x = jnp.asarray(rng.normal(size=(images, 7, 6, channels)), dtype)
    w = jnp.asarray(rng.normal(size=(*window, depth, outputs)), dtype)

    def of(convolve):
        return lambda x, w: convolve(x, w, strides, padding, dimension_numbers=NHWC, **options)

    return x, w, of(conv_general_dilated), of(lax.conv_general_dilated)


def loss(convolve):
    return lambda x, w: jnp.sum(jnp.sin(convolve(x, w)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(rng, case):
    x, w, ours, xla = operands(rng, case)
    assert ours(x, w).dtype == x.dtype
    found = jax.jit(lambda x, w: (ours(x, w), jax.grad(loss(ours), (0, 1))(x, w)))(x, w)
    wanted = jax.jit(lambda x, w: (xla(x, w), jax.grad(loss(xla), (0, 1))(x, w)))(x, w)
    jax.tree.map(lambda a, b: close(a, b, terms=1000), found, wanted)


@pytest.mark.parametrize("images", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", [case for case in CASES if case != "groups of images"])
def test_gradients_of_few_images(rng, case, images):
    x, w, ours, xla = operands(rng, case, images=images)
    gradient = jax.jit(jax.grad(loss(ours), (0, 1)))
    found, wanted = gradient(x, w), jax.jit(jax.grad(loss(xla), (0, 1)))(x, w)
    jax.tree.map(lambda a, b: close(a, b, terms=1000), found, wanted)


def test_weight_gradients_of_one_small_image_are_a_product(rng):
    x, w, ours, _ = operands(rng, "plain", images=1)
    text = jax.jit(jax.grad(loss(ours), 1)).lower(x, w).as_text()
    # The forward pass is a convolution; its derivative for the weights is none.
    assert text.count("stablehlo.convolution") == 1
    assert "stablehlo.dot_general" in text


@pytest.fixture(params=[1, 6000, 20_000], ids=["one", "two, a remainder", "several"])
def few_images_at_a_time(request, monkeypatch):
    """Divides a batch of small images into parts, as one of large ones."""
    monkeypatch.setattr(weight_gradient, "_MAP_BYTES", max(1, request.param // 4))
    monkeypatch.setattr(input_gradient, "_PRODUCT_BYTES", request.param)


@pytest.mark.parametrize("case", ["plain", "strided", "dilated", "groups of few channels"])
def test_gradients_in_parts_of_a_batch(rng, case, few_images_at_a_time):
    x, w, ours, xla = operands(rng, case, images=5)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    specs = (P("data"), P())
    gradient = jax.shard_map(
        jax.grad(loss(ours), (0, 1)), mesh=mesh, in_specs=specs, out_specs=specs, check_vma=True
    )
    found, wanted = (jax.jit(f)(x, w) for f in (gradient, jax.grad(loss(xla), (0, 1))))
    jax.tree.map(lambda a, b: close(a, b, terms=1000), found, wanted)


def test_images_are_divided_evenly():
    assert input_gradient.images_at_once(128, 600_000) == 2
    assert input_gradient.images_at_once(7, 400_000) == 3
    assert input_gradient.images_at_once(5, 0) == 5
    assert input_gradient.images_at_once(16, 10**8) == 1


@pytest.mark.parametrize(
    ("window", "images", "convolutions", "products"),
    [((3, 3), 2, 1, 0), ((3, 3), 7, 3, 0), ((1, 1), 7, 0, 1)],
)
def test_weight_gradients_of_large_maps_are_computed_in_parts(
    window, images, convolutions, products
):
    x = jax.ShapeDtypeStruct((images, 64, 64, 16), jnp.float32)
    w = jax.ShapeDtypeStruct((*window, 16, 160), jnp.float32)  # 2.6 MB of outputs per image

    def gradient(x, w):
        convolve = functools.partial(
            conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC
        )
        y, pull = jax.vjp(lambda w: convolve(x, w), w)
        return pull(jnp.ones_like(y))

    text = jax.jit(gradient).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") == convolutions
    assert text.count("stablehlo.dot_general") == products


def test_input_gradients_of_strided_layers_are_products(rng):
    x, w, ours, _ = operands(rng, "strided")
    text = jax.jit(jax.grad(loss(ours))).lower(x, w).as_text()
    assert text.count("stablehlo.convolution") == 1  # the forward pass


@pytest.mark.parametrize("case", ["strided", "groups of few channels", "depthwise"])
def test_second_derivatives_and_forward_mode(rng, case):
    x, w, ours, xla = operands(rng, case)

    def derivatives(convolve):
        gradient = jax.grad(loss(convolve), (0, 1))
        of_gradient = jax.grad(lambda x, w: jnp.sum(jnp.cos(gradient(x, w)[1])), (0, 1))
        return jax.jvp(gradient, (x, w), (jnp.cos(x), jnp.sin(w))), of_gradient(x, w)

    found, wanted = jax.jit(lambda: derivatives(ours))(), jax.jit(lambda: derivatives(xla))()
    jax.tree.map(lambda a, b: close(a, b, terms=10_000), found, wanted)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0), (3, 1)])
def test_vmap(rng, axes):
    x, w, ours, xla = operands(rng, "two groups")
    stacked = [
        array if axis is None else jnp.stack([array, 2 * array], axis)
        for array, axis in zip((x, w), axes, strict=True)
    ]
    found, wanted = (jax.jit(jax.vmap(jax.grad(loss(c), 1), axes))(*stacked) for c in (ours, xla))
    close(found, wanted, terms=10_000)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes(rng, dtype):
    with jax.enable_x64(dtype == "float64"):
        for case in ("pointwise", "groups of few channels", "depthwise"):
            x, w, ours, xla = operands(rng, case, dtype=dtype)
            exact = jax.jit(jax.grad(loss(xla), (0, 1)))(
                x.astype(jnp.float32), w.astype(jnp.float32)
            )
            found = jax.jit(jax.grad(loss(ours), (0, 1)))(x, w)
            for a, b in zip(found, exact, strict=True):
                assert a.dtype == dtype
                np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.2, rtol=0.1)


@pytest.mark.parametrize("case", ["plain", "pointwise", "depthwise", "groups of few channels"])
def test_empty_batches(rng, case):
    x, w, ours, _ = operands(rng, case, images=0)
    dx, dw = jax.jit(jax.grad(loss(ours), (0, 1)))(x, w)
    assert dx.shape == x.shape
    assert dw.shape == w.shape
    assert not np.any(dw)


def test_two_groups_are_two_convolutions_to_the_bit(rng):
    x, w, ours, _ = operands(rng, "two groups")
    halves = [
        lax.conv_general_dilated(a, b, (1, 1), "SAME", dimension_numbers=NHWC)
        for a, b in zip(jnp.split(x, 2, 3), jnp.split(w, 2, 3), strict=True)
    ]
    np.testing.assert_array_equal(jax.jit(ours)(x, w), jnp.concatenate(halves, 3))


@pytest.mark.parametrize("case", ["two groups", "groups of few channels", "depthwise"])
def test_a_cpu_program_has_no_grouped_convolution(rng, case):
    x, w, ours, xla = operands(rng, case)

    def compiled(convolve):
        return jax.jit(jax.grad(loss(convolve), (0, 1))).lower(x, w).as_text()

    def grouped_convolutions(text):
        counts = ("feature_group_count", "batch_group_count")
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line]
        return [line for line in lines if any(f"{c} = 1 " not in line for c in counts)]

    assert grouped_convolutions(compiled(xla))
    assert not grouped_convolutions(compiled(ours))


def test_other_platforms_keep_one_convolution(rng):
    x, w, ours, _ = operands(rng, "two groups")
    text = jax.jit(ours).trace(x, w).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("stablehlo.convolution") == 1
    assert "feature_group_count = 2" in text


def test_narrow_groups_are_computed_together():
    assert grouped.groups_at_once(32, 4) == 4
    assert grouped.groups_at_once(2, 48) == 1
    assert grouped.groups_at_once(2, 3) == 2  # both, and still narrow
    assert grouped.groups_at_once(9, 6) == 3


@pytest.mark.parametrize("case", ["pointwise", "groups of few channels", "depthwise"])
def test_a_symbolic_batch_is_exported(rng, case):
    x, w, ours, _ = operands(rng, case)
    gradient = jax.grad(loss(ours), (0, 1))
    (n,) = export.symbolic_shape("n")
    exported = export.export(jax.jit(gradient))(jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), w)
    jax.tree.map(lambda a, b: close(a, b, terms=1000), exported.call(x, w), gradient(x, w))


@pytest.mark.parametrize("case", ["pointwise", "strided", "groups of few channels", "depthwise"])
def test_shard_map_checks_replication(rng, case):
    x, w, ours, _ = operands(rng, case)
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    gradient = jax.grad(loss(ours), (0, 1))
    sharded = jax.shard_map(
        gradient, mesh=mesh, in_specs=(P("data"), P()), out_specs=(P("data"), P()), check_vma=True
    )
    jax.tree.map(lambda a, b: close(a, b, terms=1000), jax.jit(sharded)(x, w), gradient(x, w))


def test_numpy_operands_and_checkpoints(rng):
    x, w, ours, xla = operands(rng, "plain")
    x, w = np.asarray(x), np.asarray(w)
    found = jax.grad(jax.checkpoint(loss(ours)), 1)(x, w)
    close(found, jax.grad(loss(xla), 1)(x, w), terms=1000)


def test_errors_are_those_of_jax():
    x, w = jnp.ones((1, 4, 4, 3)), jnp.ones((3, 3, 2, 5))
    with pytest.raises((TypeError, ValueError), match="feature"):
        conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)


def test_the_layer_is_linens(rng):
    import flax.linen as nn

    x = jnp.asarray(rng.normal(size=(2, 5, 5, 4)), jnp.float32)
    options = {"feature_group_count": 2, "strides": 2, "name": "conv"}
    ours, linen = Conv(6, (3, 3), **options), nn.Conv(6, (3, 3), **options)
    variables = linen.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, ours.init(jax.random.key(0), x), variables)
    close(ours.apply(variables, x), linen.apply(variables, x), terms=100)


def test_gradients_under_a_mesh_of_one_device_take_the_same_path():
    """JAX notes an output sharding in gradients under a mesh; training steps have one."""
    mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))

    def loss(w, x):
        x = jax.lax.with_sharding_constraint(x, sharding)
        y = conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=NHWC)
        return jnp.sum(jnp.square(y))

    with jax.set_mesh(mesh):
        program = jax.jit(jax.grad(loss)).lower(
            jnp.ones((1, 1, 32, 48)), jax.device_put(jnp.ones((4, 5, 5, 32)), sharding)
        )
    # Forward and input gradient stay convolutions; the weight gradient is a product.
    assert program.as_text().count("stablehlo.dot_general") == 1
    assert program.as_text().count("stablehlo.convolution") == 1
