"""The tile-wise kernels for Hopper: interpreted values, what lowers, what is refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.sharding import AbstractDevice, AbstractMesh
from tolerances import close

from kernels._common.geometry import make_geometry
from kernels._common.tile_conv import require
from kernels.masked_conv import mosaic_gpu as masked
from kernels.perforated_conv import mosaic_gpu as perforated

pytestmark = [
    pytest.mark.core,
    pytest.mark.skipif(not hasattr(plgpu, "im2col_ref"), reason="needs JAX 0.12"),
]


def layer(rng, *, padding=((1, 1), (0, 1)), window=(3, 2), dtype="bfloat16"):
    """2 images, 72 output positions: one whole tile and 8 positions of another."""
    x = jnp.asarray(rng.standard_normal((2, 6, 6, 64)), dtype)
    w = jnp.asarray(rng.standard_normal((*window, 64, 64)), dtype)
    return x, w, make_geometry(x, w, strides=(1, 1), padding=padding, groups=1)


def dense(x, w, geometry):
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    x = np.pad(x, ((0, 0), *geometry.padding, (0, 0)))
    height, width = geometry.output_size
    return sum(
        x[:, i : i + height, j : j + width] @ w[i, j]
        for i in range(w.shape[0])
        for j in range(w.shape[1])
    ).reshape(-1, w.shape[3])


def test_perforated_equals_the_dense_convolution(rng):
    x, w, geometry = layer(rng)
    bias = jnp.asarray(rng.standard_normal(64), x.dtype)
    positions = np.asarray([0, 7, 8, 35], np.int32)
    out = perforated.forward(x, w, positions, geometry, bias=bias, interpret=True)
    expected = dense(x, w, geometry).reshape(2, -1, 64)[:, positions]
    close(out, expected + np.asarray(bias, np.float64), terms=6 * 64, dtype=x.dtype)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([3, 71, 64], id="both-tiles"),
        pytest.param([70, 65], id="second-tile-only"),
        pytest.param([], id="none"),
    ],
)
def test_masked_equals_the_dense_convolution(rng, rows):
    x, w, geometry = layer(rng, dtype="float16", window=(1, 1), padding=((0, 0), (0, 0)))
    residual = jnp.asarray(rng.standard_normal((5, 64)), x.dtype)
    given = np.full(5, 2**30, np.int32)
    given[: len(rows)] = rows
    out = masked.forward(
        x,
        w,
        jnp.asarray(given),
        jnp.int32(len(rows)),
        geometry,
        residual=residual,
        activation="relu",
        interpret=True,
    )
    expected = np.zeros((5, 64))
    for r, row in enumerate(rows):
        expected[r] = dense(x, w, geometry)[row] + np.asarray(residual[r], np.float64)
    close(out, np.maximum(expected, 0), terms=64, dtype=x.dtype)
    assert not np.any(np.asarray(out)[len(rows) :])


def on(kind, platform="gpu"):
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


@pytest.mark.parametrize("x64", [False, True])
def test_lowers_for_an_h100(x64):
    with jax.enable_x64(x64):
        x = jax.ShapeDtypeStruct((2, 14, 14, 128), jnp.bfloat16)
        w = jax.ShapeDtypeStruct((3, 3, 128, 256), jnp.bfloat16)
        geometry = make_geometry(x, w, strides=(1, 1), padding="SAME", groups=1)
        rows = jax.ShapeDtypeStruct((300,), jnp.int32)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        with on("NVIDIA H100 80GB HBM3"):
            program = jax.jit(lambda *a: masked.forward(*a, geometry)).trace(x, w, rows, count)
            text = program.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @mosaic_gpu") == 1


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"dtype": "float32"}, "NVIDIA H100", "needs bfloat16 or float16"),
        ({"strides": (2, 1)}, "NVIDIA H100", r"needs strides \(1, 1\)"),
        ({"groups": 2}, "NVIDIA H100", "one group"),
        ({"channels": 96}, "NVIDIA H100", "multiples of 64 channels"),
        ({}, "NVIDIA A100-SXM4-40GB", "needs a Hopper GPU"),
        ({}, "NVIDIA H1000", "needs a Hopper GPU"),
    ],
)
def test_what_it_cannot_do_is_said(change, kind, message):
    sizes = {"dtype": "bfloat16", "strides": (1, 1), "groups": 1, "channels": 128} | change
    x = jax.ShapeDtypeStruct((1, 8, 8, sizes["channels"]), jnp.dtype(sizes["dtype"]))
    w = jax.ShapeDtypeStruct((3, 3, sizes["channels"] // sizes["groups"], 64), x.dtype)
    geometry = make_geometry(x, w, strides=sizes["strides"], padding="SAME", groups=sizes["groups"])
    with on(kind), pytest.raises(NotImplementedError, match=message):
        require(x, geometry)
