"""Both operations' kernels lower for machines that are not here, and run interpreted here."""

from __future__ import annotations

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh
from tolerances import close

from kernels._common.geometry import make_geometry
from kernels._common.windows import tap_offsets, window_rows

pytestmark = pytest.mark.core

MACHINES = {
    "pallas_triton": ("gpu", "cuda", "NVIDIA H100", "__gpu$xla.gpu.triton"),
    "mosaic_tpu": ("tpu", "tpu", "TPU v5 lite", "tpu_custom_call"),
}
IMPLEMENTATIONS = tuple(MACHINES)


def lowered(implementation, f, *shapes):
    """Text of the program for the implementation's machine."""
    platform, lowering_platform, kind, _ = MACHINES[implementation]
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    mesh = AbstractMesh((), (), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        program = jax.jit(f).trace(*shapes).lower(lowering_platforms=(lowering_platform,))
    return program.as_text()


def shapes_of(*, dtype, channels=64, outputs=96, window=3, stride=1, groups=1, batch=2):
    """(geometry, x, w) of a layer of 10 x 9."""
    x = jax.ShapeDtypeStruct((batch, 10, 9, channels), dtype)
    w = jax.ShapeDtypeStruct((window, window, channels // groups, outputs), dtype)
    padding = ((window // 2, window // 2),) * 2
    return make_geometry(x, w, strides=(stride, stride), padding=padding, groups=groups), x, w


def masked_program(implementation, geometry, x, w):
    forward = importlib.import_module(f"kernels.masked_conv.{implementation}").forward
    rows = jax.ShapeDtypeStruct((geometry.batch * geometry.positions,), jnp.int32)
    residual = jax.ShapeDtypeStruct((*rows.shape, geometry.outputs), x.dtype)
    bias = jax.ShapeDtypeStruct((geometry.outputs,), x.dtype)
    count = jax.ShapeDtypeStruct((), jnp.int32)

    def f(x, w, rows, count, bias, residual):
        return forward(x, w, rows, count, geometry, bias=bias, activation="relu", residual=residual)

    return lowered(implementation, f, x, w, rows, count, bias, residual)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("dtype", "sizes"),
    [
        ("float32", {}),
        ("bfloat16", {}),
        ("float16", {}),
        ("float32", {"window": 1, "stride": 2, "channels": 200}),
        ("bfloat16", {"channels": 3, "outputs": 5, "window": 7}),
        ("bfloat16", {"channels": 96, "groups": 2}),
    ],
    ids=["3x3-f32", "3x3-bf16", "3x3-f16", "1x1-stride", "few-channels", "groups"],
)
def test_masked_lowers(implementation, dtype, sizes):
    text = masked_program(implementation, *shapes_of(dtype=dtype, **sizes))
    assert text.count(MACHINES[implementation][3]) == 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_perforated_lowers_without_a_warning(implementation):
    geometry, x, w = shapes_of(dtype="bfloat16")
    forward = importlib.import_module(f"kernels.perforated_conv.{implementation}").forward
    positions = np.arange(1, geometry.positions, 3, dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = lowered(implementation, lambda x, w: forward(x, w, positions, geometry), x, w)
    assert text.count(MACHINES[implementation][3]) == 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_lowers_in_a_process_with_x64(implementation):
    with jax.enable_x64(True):
        text = masked_program(implementation, *shapes_of(dtype="float32"))
    assert MACHINES[implementation][3] in text
    assert "f64" not in text


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_lowers_under_vmap(implementation):
    geometry, x, w = shapes_of(dtype="float32")
    forward = importlib.import_module(f"kernels.masked_conv.{implementation}").forward
    rows = jax.ShapeDtypeStruct((3, 40), jnp.int32)
    many = jax.ShapeDtypeStruct((3, *x.shape), x.dtype)
    counts = jax.ShapeDtypeStruct((3,), jnp.int32)

    def f(x, w, rows, count):
        return jax.vmap(lambda x, r, c: forward(x, w, r, c, geometry))(x, rows, count)

    assert MACHINES[implementation][3] in lowered(implementation, f, many, w, rows, counts)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_without_the_machine_it_says_what_it_needs(implementation):
    geometry, x, w = shapes_of(dtype="float32")
    forward = importlib.import_module(f"kernels.perforated_conv.{implementation}").forward
    with pytest.raises(NotImplementedError, match=rf"{implementation} needs a (GPU|TPU); .*cpu"):
        forward(jnp.zeros(x.shape), jnp.zeros(w.shape), np.arange(4), geometry)


def test_weights_too_large_for_vmem_are_refused():
    geometry, x, w = shapes_of(dtype="float32", window=9, channels=2000)
    with pytest.raises(NotImplementedError, match="MiB of VMEM"):
        masked_program("mosaic_tpu", geometry, x, w)


def oracle(x, w, geometry, bias=None):
    """float64[N, H', W', O] by shifted slices."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    x = np.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    height, width = geometry.output_size
    (down, right), groups = geometry.strides, geometry.groups
    out = np.zeros((x.shape[0], height, width, w.shape[3]))
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            part = x[:, i : i + down * height : down, j : j + right * width : right]
            part = part[:, :height, :width].reshape(*out.shape[:3], groups, -1)
            weights = w[i, j].reshape(-1, groups, w.shape[3] // groups)
            out += np.einsum("nhwgc,cgo->nhwgo", part, weights).reshape(out.shape)
    return out if bias is None else out + np.asarray(bias, np.float64)


LAYERS = [
    ((3, 3), (1, 1), ((1, 1), (1, 1)), 1),
    ((3, 2), (2, 3), ((0, 2), (1, 0)), 1),
    ((1, 1), (2, 1), ((0, 0), (0, 0)), 1),
    ((2, 7), (1, 1), ((1, 0), (0, 0)), 2),  # a window as wide as the input
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("window", "strides", "padding", "groups"), LAYERS)
def test_both_operations_equal_the_dense_convolution(
    rng, implementation, window, strides, padding, groups
):
    x = jnp.asarray(rng.standard_normal((2, 6, 7, 4)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((*window, 4 // groups, 6)), jnp.float32)
    bias = jnp.asarray(rng.standard_normal(6), jnp.float32)
    geometry = make_geometry(x, w, strides=strides, padding=padding, groups=groups)
    expected = oracle(x, w, geometry, bias).reshape(2, -1, 6)
    terms = geometry.taps * 4

    positions = np.flatnonzero(rng.random(geometry.positions) < 0.5).astype(np.int32)
    perforated = importlib.import_module(f"kernels.perforated_conv.{implementation}")
    out = perforated.forward(x, w, positions, geometry, bias=bias, interpret=True)
    close(out, expected[:, positions], terms=terms)

    if strides == (1, 1):
        return  # the same kernel once more, with a count, for the other layers
    rows = rng.permutation(2 * geometry.positions).astype(np.int32)
    masked = importlib.import_module(f"kernels.masked_conv.{implementation}")
    count = len(rows) // 2
    out = masked.forward(
        x, w, jnp.asarray(rows), jnp.int32(count), geometry, bias=bias, interpret=True
    )
    wanted = expected.reshape(-1, 6)[rows]
    wanted[count:] = 0
    close(out, wanted, terms=terms)


def test_window_rows_point_at_the_pixels_of_the_padded_input(rng):
    x = rng.standard_normal((2, 5, 6, 1)).astype(np.float32)
    w = np.zeros((3, 2, 1, 1), np.float32)
    geometry = make_geometry(x, w, strides=(2, 1), padding=((1, 0), (2, 1)), groups=1)
    padded = np.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    height, width = geometry.output_size
    positions = np.arange(2 * height * width)
    first = window_rows(positions, geometry)
    for position, row in zip(positions, first, strict=True):
        n, y, z = np.unravel_index(position, (2, height, width))
        window = padded[n, 2 * y : 2 * y + 3, z : z + 2].ravel()
        flat = padded.reshape(-1)[[row + tap for tap in tap_offsets(geometry)]]
        np.testing.assert_array_equal(flat, window)
