"""Perforated convolution against NumPy, for every implementation that runs on a CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_kernels import SHAPES, over_shapes_of_gradients, some
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from oracle import convolution, copies
from tolerances import close

from kernels import perforated_conv
from kernels.perforated_conv import choose

pytestmark = pytest.mark.core
EVERYWHERE = ("xla", "dense", "reference")


def masks(rng, size):
    """A random one, regular grids, one position, all."""
    last = np.zeros(size, bool)
    last[-1, -1] = True
    grid = np.zeros(size, bool)
    grid[size[0] % 2 :: 2, ::2] = True
    grid[0] |= ~grid.any()
    return {
        "random": some(rng, size),
        "grid": grid,
        "last": last,
        "all": np.ones(size, bool),
    }


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_kept_positions_are_exact(implementation, shape, arrays, size, rng):
    expected = convolution(*arrays, **shape.options)
    every = masks(rng, size)

    @jax.jit
    def compact(x, w):
        options = {**shape.options, "implementation": implementation, "fill": "compact"}
        return {name: perforated_conv(x, w, mask, **options) for name, mask in every.items()}

    for name, y in compact(*arrays).items():
        close(y, expected[:, every[name]], terms=int(np.prod(arrays[1].shape[:3])))


@pytest.mark.parametrize("implementation", EVERYWHERE)
@pytest.mark.parametrize("name", ["square", "odd"])
def test_the_other_positions_follow_the_fill(implementation, name, rng):
    shape = SHAPES[name]
    x, w = shape.arrays(rng)
    expected = convolution(x, w, **shape.options)
    mask = some(rng, expected.shape[1:3])

    @jax.jit
    def filled(x, w):
        options = {**shape.options, "implementation": implementation}
        return [perforated_conv(x, w, mask, fill=fill, **options) for fill in ("zeros", "nearest")]

    zeros, nearest = map(np.asarray, filled(x, w))
    close(zeros, expected * mask[..., None], terms=45)
    flat = nearest.reshape(len(nearest), -1, nearest.shape[3])
    for row, line in enumerate(copies(expected, mask)):
        for column, allowed in enumerate(line):
            here = nearest[:, row, column]
            assert any(np.array_equal(here, flat[:, p]) for p in allowed), (row, column)


@over_shapes_of_gradients
@pytest.mark.parametrize("implementation", ["xla", "dense"])
def test_gradients_equal_those_of_the_reference(implementation, shape, arrays, size, rng):
    every = masks(rng, size)
    bias = jnp.asarray(rng.standard_normal(shape.outputs), jnp.float32)

    def gradients(name):
        def loss(x, w, bias):
            options = {**shape.options, "implementation": name, "bias": bias}
            fills = dict(zip(every, ("nearest", "zeros", "compact", "nearest"), strict=True))
            parts = (
                perforated_conv(x, w, mask, fill=fills[kind], **options)
                for kind, mask in every.items()
            )
            return sum(jnp.sum(jnp.sin(y)) for y in parts)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(*arrays, bias)

    for ours, reference in zip(gradients(implementation), gradients("reference"), strict=True):
        close(ours, reference, terms=100, gradient=True)


def test_the_references_gradient_is_that_of_finite_differences(rng):
    """The oracle of the other gradients is itself held against differences, in float64."""
    with jax.enable_x64(True):
        x, w = SHAPES["groups"].arrays(rng, jnp.float64)
        mask = some(rng, (3, 4))

        @jax.jit
        def loss(x, w):
            options = SHAPES["groups"].options
            y = perforated_conv(x, w, mask, implementation="reference", **options)
            return jnp.sum(jnp.sin(y))

        direction = (
            jnp.asarray(rng.standard_normal(x.shape)),
            jnp.asarray(rng.standard_normal(w.shape)),
        )
        step = 1e-6
        forward = loss(x + step * direction[0], w + step * direction[1])
        backward = loss(x - step * direction[0], w - step * direction[1])
        slope = sum(
            jnp.vdot(g, d) for g, d in zip(jax.grad(loss, (0, 1))(x, w), direction, strict=True)
        )
        assert abs((forward - backward) / (2 * step) - slope) < 1e-6 * abs(slope) + 1e-7
        for name in ("xla", "dense"):
            y = perforated_conv(x, w, mask, implementation=name, **SHAPES["groups"].options)
            assert y.dtype == jnp.float64
            expected = perforated_conv(
                x, w, mask, implementation="reference", **SHAPES["groups"].options
            )
            close(y, expected, terms=50, dtype=jnp.float64)


def test_copies_pass_their_cotangents_to_what_they_copy(rng):
    x, w = jnp.ones((1, 4, 4, 1)), jnp.ones((1, 1, 1, 1))
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = mask[3, 3] = True
    gradient = jax.grad(lambda x: perforated_conv(x, w, mask).sum())(x)
    assert float(gradient.sum()) == 16
    assert np.count_nonzero(np.asarray(gradient)) == 2


def test_a_given_nearest_map_is_used_and_a_missing_one_is_always_the_same(rng):
    x, w = jnp.asarray(rng.standard_normal((1, 3, 4, 2))), jnp.ones((1, 1, 2, 2))
    mask = np.zeros((3, 4), bool)
    mask[0, 0] = mask[2, 3] = True
    nearest = np.zeros((3, 4), int)
    nearest[2, 3] = 11
    y = perforated_conv(x, w, mask, nearest=nearest)
    assert np.array_equal(y[0, 1, 2], y[0, 0, 0])
    assert not np.array_equal(y[0, 2, 3], y[0, 0, 0])
    assert np.array_equal(perforated_conv(x, w, mask), perforated_conv(x, w, mask.copy()))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_summed_in_float32(dtype, rng):
    # 2048 equal terms: a sum kept in bfloat16 stops growing at 256.
    x, w = jnp.ones((1, 4, 4, 2048), dtype), jnp.full((1, 1, 2048, 2), 0.25, dtype)
    mask = some(rng, (4, 4))
    for name in EVERYWHERE:
        y = perforated_conv(x, w, mask, implementation=name)
        assert y.dtype == dtype
        assert np.all(np.asarray(y, np.float32) == 512)


def test_vmap_is_a_loop(rng):
    x = jnp.asarray(rng.standard_normal((3, 2, 6, 5, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 3, 4, 2)), jnp.float32)
    mask = some(rng, (6, 5))

    def loss(x, w):
        y = perforated_conv(x, w, mask, implementation="xla")
        return jnp.sum(jnp.sin(y)), y

    one = jax.value_and_grad(loss, 1, has_aux=True)
    (_, both), gradients = jax.jit(jax.vmap(one))(x, w)
    one = jax.jit(one)
    for i in range(3):
        (_, y), gradient = one(x[i], w[i])
        close(both[i], y, terms=36)
        close(gradients[i], gradient, terms=100, gradient=True)


@pytest.mark.parametrize("implementation", ["xla", "dense"])
def test_inputs_may_be_divided_over_devices(implementation, rng):
    x = jnp.asarray(rng.standard_normal((4, 6, 6, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 4, 8)), jnp.float32)
    mask = some(rng, (6, 6))
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("data", "model"))
    divided = (
        jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))),
        jax.device_put(w, NamedSharding(mesh, PartitionSpec(None, None, None, "model"))),
    )

    def loss(x, w):
        y = perforated_conv(x, w, mask, implementation=implementation)
        return jnp.sum(jnp.sin(y)), y

    value = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, y), gradients = value(*divided)
    (_, expected), references = value(x, w)
    close(y, expected, terms=36)
    for ours, reference in zip(gradients, references, strict=True):
        close(ours, reference, terms=100, gradient=True)


def test_relu_and_bias_come_before_the_copies(rng):
    x, w = SHAPES["square"].arrays(rng)
    bias = jnp.asarray(rng.standard_normal(5), jnp.float32)
    mask = some(rng, (8, 8))
    plain = np.asarray(perforated_conv(x, w, mask))
    close(
        perforated_conv(x, w, mask, bias=bias, activation="relu"),
        np.maximum(plain + np.asarray(bias), 0),
        terms=36,
    )


def test_everything_kept_is_the_dense_convolution_bit_for_bit(rng):
    x, w = SHAPES["square"].arrays(rng)
    dense = jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mask = np.ones((8, 8), bool)
    assert choose(x, w, mask).implementation == "dense"
    assert np.array_equal(perforated_conv(x, w, mask), dense)


def test_the_choice_follows_cost_and_is_what_runs():
    big = jax.ShapeDtypeStruct((8, 28, 28, 512), jnp.float32)
    weights = jax.ShapeDtypeStruct((3, 3, 512, 512), jnp.float32)
    quarter = np.zeros((28, 28), bool)
    quarter[::2, ::2] = True
    assert choose(big, weights, quarter).implementation == "xla"
    narrow = jax.ShapeDtypeStruct((8, 28, 28, 64), jnp.float32)
    narrow_weights = jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)
    most = np.ones((28, 28), bool)
    most[0, 0] = False
    assert choose(narrow, narrow_weights, most).implementation == "dense"
    thin = jax.ShapeDtypeStruct((8, 32, 32, 16), jnp.float32)
    thin_weights = jax.ShapeDtypeStruct((3, 3, 16, 16), jnp.float32)
    grid = np.zeros((32, 32), bool)
    grid[::2, ::2] = True
    choice = choose(thin, thin_weights, grid, fill="compact")
    assert (choice.implementation, choice.detail) == ("xla", "strided")
    lowered = jax.jit(lambda x, w: perforated_conv(x, w, grid, fill="compact")).lower(
        thin, thin_weights
    )
    assert "stride = [2, 2]" in lowered.as_text()


def test_names_and_sequences(rng):
    x, w = SHAPES["square"].arrays(rng)
    mask = some(rng, (8, 8))
    with pytest.raises(NotImplementedError, match="GPU"):
        perforated_conv(x, w, mask, implementation="pallas_triton")
    with pytest.raises(NotImplementedError, match=r"pallas_triton: .*; mosaic_tpu: "):
        perforated_conv(x, w, mask, implementation=("pallas_triton", "mosaic_tpu"))
    choice = choose(x, w, mask, implementation=("mosaic_tpu", "reference", "xla"))
    assert choice.implementation == "reference"
    assert [name for name, _ in choice.passed_over] == ["mosaic_tpu"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((8, 8), bool)}, "keeps no position"),
        ({"mask": np.ones((8, 7), bool)}, r"mask has shape \(8, 7\); expected .*\(8, 8\)"),
        ({"mask": np.ones((1, 8, 8), bool)}, r"expected bool\[H', W'\]"),
        ({"mask": np.ones((8, 8), int)}, "mask is int64"),
        ({"nearest": np.full((8, 8), 64)}, "nearest points to positions"),
        ({"nearest": np.zeros((8, 8))}, "nearest is float64"),
        ({"fill": "linear"}, "fill is 'linear'"),
        ({"groups": 3}, "groups is 3"),
        ({"strides": (0, 1)}, r"strides is \(0, 1\)"),
        ({"padding": "REFLECT"}, "padding is 'REFLECT'"),
        ({"padding": ((0, -1), (0, 0))}, "integers >= 0"),
        ({"bias": jnp.ones(4)}, r"bias has shape \(4,\); expected \(5,\)"),
        ({"implementation": "cuda"}, "implementation is 'cuda'"),
        ({"implementation": ()}, "empty sequence"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"w": jnp.ones((3, 3, 4, 5), jnp.bfloat16)}, "w has dtype bfloat16"),
        ({"w": jnp.ones((3, 3, 2, 5))}, "expected 4 in its third axis"),
        ({"x": jnp.ones((8, 8, 4))}, r"x has shape \(8, 8, 4\)"),
        ({"x": jnp.ones((2, 8, 8, 4), jnp.int32)}, "x has dtype int32"),
    ],
)
def test_a_mistake_is_named(change, message, rng):
    x, w = SHAPES["square"].arrays(rng)
    arguments = {"x": x, "w": w, "mask": np.ones((8, 8), bool), **change}
    with pytest.raises(ValueError, match=message):
        perforated_conv(arguments.pop("x"), arguments.pop("w"), arguments.pop("mask"), **arguments)


def test_a_traced_mask_is_refused_with_a_way_out(rng):
    x, w = SHAPES["square"].arrays(rng)
    with pytest.raises(ValueError, match="masked_conv"):
        jax.jit(lambda mask: perforated_conv(x, w, mask))(jnp.ones((8, 8), bool))


def test_no_images_give_no_outputs():
    x, w = jnp.zeros((0, 4, 4, 2)), jnp.zeros((3, 3, 2, 3))
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    for name in EVERYWHERE:
        assert perforated_conv(x, w, mask, implementation=name).shape == (0, 4, 4, 3)
