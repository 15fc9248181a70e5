"""Tunes the tile of a Pallas kernel for a layer."""

from __future__ import annotations

import importlib
import statistics
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import masks
from experiments.shared.timing import time_interleaved
from kernels._common.autotune import autotune
from kernels._common.geometry import make_geometry
from kernels._common.layer_shapes import Layer
from kernels._common.tiling import Problem, TileConfig


def tune_layer(
    layer: Layer,
    *,
    batch: int,
    keep: float,
    dtype: str,
    implementation: str,
    device_kind: str,
    folder: Path | None = None,
    seconds: float = 0.2,
    tiles: list[TileConfig] | None = None,
    interpret: Any = False,
) -> TileConfig:
    """Tunes the perforated convolution of a layer, writes the result and returns the best tile.

    Args:
        layer: The convolution.
        batch: Number of images.
        keep: Share of kept positions.
        dtype: Dtype of inputs and weights.
        implementation: Name of the kernel.
        device_kind: Vendor's name of this device.
        folder: Folder of the tuned tables; None for that of the kernels.
        seconds: Approximate timing of one tile.
        tiles: Candidates; None for the kernel's own.
        interpret: Whether to run in Pallas' interpreter, for tests.
    """
    rng = np.random.default_rng(0)
    depth = layer.channels // layer.groups
    x = jnp.asarray(rng.standard_normal((batch, layer.size, layer.size, layer.channels)), dtype)
    w = jnp.asarray(
        rng.standard_normal((layer.window, layer.window, depth, layer.outputs)) / 64, dtype
    )
    geometry = make_geometry(
        x,
        w,
        strides=(layer.stride, layer.stride),
        padding=((layer.padding, layer.padding),) * 2,
        groups=layer.groups,
    )
    positions = np.flatnonzero(masks.fixed("random", rng, geometry.output_size, keep))
    module = importlib.import_module(f"kernels.perforated_conv.{implementation}")
    problem = Problem(
        dtype=jnp.dtype(dtype).name,
        rows=batch * len(positions),
        taps=geometry.taps,
        channels=depth,
        outputs=layer.outputs // layer.groups,
        groups=layer.groups,
    )

    def time(tile: TileConfig) -> float:
        @jax.jit
        def run(x, w):
            return module.forward(x, w, positions, geometry, tile=tile, interpret=interpret)

        def once() -> None:
            jax.block_until_ready(run(x, w))

        return statistics.median(time_interleaved({"tile": once}, seconds=seconds)["tile"])

    return autotune(
        problem,
        time,
        op="perforated_conv",
        implementation=implementation,
        device_kind=device_kind,
        tiles=tiles,
        folder=folder,
    )
