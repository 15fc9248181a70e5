"""Masked convolution against NumPy, for every implementation that runs on a CPU."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_kernels import SHAPES, over_shapes_of_gradients
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from oracle import convolution
from tolerances import close

from kernels import masked_conv
from kernels.masked_conv import choose
from kernels.masked_conv.active import fold_over_pieces, list_active, piece_sizes

pytestmark = pytest.mark.core
EVERYWHERE = ("xla", "dense", "reference")


def masks(rng, shape):
    """Random ones, of which one image has none, one position, none, all."""
    some = rng.random(shape) < 0.4
    some[0] = False
    one = np.zeros(shape, bool)
    one[-1, -1, -1] = True
    return np.stack([some, one, np.zeros(shape, bool), np.ones(shape, bool)])


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_active_positions_are_exact_and_the_others_zero(implementation, shape, arrays, size, rng):
    expected = convolution(*arrays, **shape.options)
    every = masks(rng, (len(expected), *size))

    @jax.jit
    def run(x, w, mask):
        return masked_conv(x, w, mask, implementation=implementation, **shape.options)

    for mask in every:
        y = np.asarray(run(*arrays, jnp.asarray(mask)))
        close(y, expected * mask[..., None], terms=int(np.prod(arrays[1].shape[:3])))
        assert np.all(y[~mask] == 0)


@over_shapes_of_gradients
@pytest.mark.parametrize("implementation", ["xla", "dense"])
def test_gradients_equal_those_of_the_reference(implementation, shape, arrays, size, rng):
    every = masks(rng, (shape.x[0], *size))
    bias = jnp.asarray(rng.standard_normal(shape.outputs), jnp.float32)

    def gradients(name):
        @jax.jit
        def run(x, w, bias, mask):
            def loss(x, w, bias):
                y = masked_conv(x, w, mask, bias=bias, implementation=name, **shape.options)
                return jnp.sum(jnp.sin(y))

            return jax.grad(loss, (0, 1, 2))(x, w, bias)

        return [run(*arrays, bias, jnp.asarray(mask)) for mask in every]

    for ours, reference in zip(gradients(implementation), gradients("reference"), strict=True):
        for a, b in zip(ours, reference, strict=True):
            close(a, b, terms=100, gradient=True)


def test_a_new_mask_does_not_trace_again(rng):
    x, w = SHAPES["square"].arrays(rng)
    traces = 0

    @jax.jit
    def run(x, w, mask):
        nonlocal traces
        traces += 1
        return masked_conv(x, w, mask)

    for mask in masks(rng, (2, 8, 8)):
        run(x, w, jnp.asarray(mask))
    assert traces == 1


@pytest.mark.parametrize("capacity", [0, 1, 40, 10_000])
def test_the_result_does_not_depend_on_the_capacity(capacity, rng):
    x, w = SHAPES["square"].arrays(rng)
    expected = convolution(x, w, strides=(1, 1), padding="SAME", groups=1)
    run = jax.jit(lambda mask: masked_conv(x, w, mask, capacity=capacity))
    for mask in masks(rng, (2, 8, 8)):
        close(run(jnp.asarray(mask)), expected * mask[..., None], terms=36)


def test_bias_is_added_where_something_is_computed(rng):
    x, w = SHAPES["square"].arrays(rng)
    mask = masks(rng, (2, 8, 8))[0]
    bias = jnp.full(5, 100.0)
    y = np.asarray(masked_conv(x, w, jnp.asarray(mask), bias=bias, activation="relu"))
    assert np.all(y[~mask] == 0)
    assert np.all(y[mask] > 0)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_short_floats_are_summed_in_float32(dtype):
    x, w = jnp.ones((1, 4, 4, 2048), dtype), jnp.full((1, 1, 2048, 2), 0.25, dtype)
    mask = jnp.zeros((1, 4, 4), bool).at[0, 1].set(True)
    for name in EVERYWHERE:
        y = masked_conv(x, w, mask, implementation=name)
        assert y.dtype == dtype
        assert np.all(np.asarray(y[0, 1], np.float32) == 512)


def test_float64_is_kept_in_an_x64_process(rng):
    with jax.enable_x64(True):
        x, w = SHAPES["groups"].arrays(rng, jnp.float64)
        mask = rng.random((2, 3, 4)) < 0.5
        expected = convolution(x, w, **SHAPES["groups"].options) * mask[..., None]

        def loss(w):
            y = masked_conv(x, w, jnp.asarray(mask), **SHAPES["groups"].options)
            return jnp.sum(y), y

        (_, y), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(w)
        assert y.dtype == gradient.dtype == jnp.float64
        close(y, expected, terms=27, dtype=jnp.float64)


def test_vmap_over_images_and_masks_is_a_loop(rng):
    x = jnp.asarray(rng.standard_normal((3, 2, 5, 6, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 4, 2)), jnp.float32)
    mask = jnp.asarray(masks(rng, (2, 5, 6))[:3])
    both = jax.jit(jax.vmap(masked_conv, in_axes=(0, None, 0)))(x, w, mask)
    for i in range(3):
        expected = convolution(x[i], w, strides=(1, 1), padding="SAME", groups=1)
        close(both[i], expected * np.asarray(mask[i])[..., None], terms=36)


def test_inputs_may_be_divided_over_devices(rng):
    x = jnp.asarray(rng.standard_normal((4, 6, 6, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 4, 8)), jnp.float32)
    mask = jnp.asarray(rng.random((4, 6, 6)) < 0.4)
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    data = NamedSharding(mesh, PartitionSpec("data"))

    def loss(x, w, mask):
        y = masked_conv(x, w, mask)
        return jnp.sum(jnp.sin(y)), y

    value = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, y), gradients = value(jax.device_put(x, data), w, jax.device_put(mask, data))
    (_, expected), references = value(x, w, mask)
    close(y, expected, terms=36)
    for ours, reference in zip(gradients, references, strict=True):
        close(ours, reference, terms=100, gradient=True)


def test_the_list_of_active_positions(rng):
    mask = rng.random((3, 4, 5)) < 0.3
    active = list_active(jnp.asarray(mask))
    expected = np.flatnonzero(mask)
    assert int(active.count) == len(expected)
    assert np.array_equal(active.rows[: len(expected)], expected)
    assert np.array_equal(np.flatnonzero(active.number), expected)
    short = list_active(jnp.asarray(mask), capacity=2)
    assert np.array_equal(short.rows, expected[:2])
    assert int(list_active(jnp.zeros((0, 4), bool)).count) == 0


@pytest.mark.parametrize("sizes", [(16, 8, 2), (4,), (32, 16, 4)])
def test_pieces_cover_everything_once(sizes):
    @jax.jit
    def visits(count):
        def mark(start, size, seen):
            places = start + jnp.arange(size)
            return seen.at[jnp.where(places < count, places, 99)].add(1, mode="drop")

        return fold_over_pieces(count, sizes, mark, jnp.zeros(99, jnp.int32))

    for count in range(66):
        seen = np.asarray(visits(jnp.int32(count)))
        assert np.array_equal(seen, (np.arange(99) < count).astype(int)), count


def test_piece_sizes_fall_and_divide():
    for depth in (9, 576, 4608, 10**6):
        sizes = piece_sizes(depth)
        assert all(a % b == 0 and a > b for a, b in itertools.pairwise(sizes))


def test_the_choice_says_where_it_turns_dense():
    x = jax.ShapeDtypeStruct((8, 28, 28, 128), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 128, 128), jnp.float32)
    mask = jax.ShapeDtypeStruct((8, 28, 28), jnp.bool_)
    choice = choose(x, w, mask)
    assert choice.implementation == "xla"
    assert "of 6272 positions" in choice.detail
    assert "up to 100 of" in choose(x, w, mask, capacity=100).detail


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": jnp.ones((8, 8), bool)}, r"expected bool\[2, 8, 8\]"),
        ({"mask": jnp.ones((2, 8, 7), bool)}, r"mask is bool\[2, 8, 7\]"),
        ({"mask": jnp.ones((2, 8, 8))}, r"mask is float32\[2, 8, 8\]"),
        ({"capacity": -1}, "capacity is -1"),
        ({"groups": 5}, "groups is 5"),
        ({"bias": jnp.ones(3)}, "bias has shape"),
        ({"implementation": "fast"}, "implementation is 'fast'"),
        ({"activation": "tanh"}, "activation is 'tanh'"),
    ],
)
def test_a_mistake_is_named(change, message, rng):
    x, w = SHAPES["square"].arrays(rng)
    arguments = {"mask": jnp.ones((2, 8, 8), bool), **change}
    with pytest.raises(ValueError, match=message):
        masked_conv(x, w, arguments.pop("mask"), **arguments)


def test_an_absent_implementation_says_what_it_needs(rng):
    x, w = SHAPES["square"].arrays(rng)
    mask = jnp.ones((2, 8, 8), bool)
    with pytest.raises(NotImplementedError, match="needs a TPU"):
        masked_conv(x, w, mask, implementation="mosaic_tpu")
    assert choose(x, w, mask, implementation=("mosaic_tpu", "dense")).implementation == "dense"
