"""The kernel benchmark: what it selects, what it makes of its cases."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.bench import kernels, masks
from experiments.bench.kernel_figure import draw
from experiments.bench.kernel_summary import break_even, record, summary
from experiments.bench.tuning import tune_layer
from experiments.commands import bench_autotune, bench_kernels
from kernels._common.layer_shapes import LAYERS, Layer
from kernels._common.tiling import TileConfig
from kernels._common.tuned import read_table


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(1.0, 0.5), (0.5, 1.5), (0.25, 3.0)], 0.75),
        ([(1.0, 1.2), (0.5, 0.9)], 1.0),
        ([(1.0, 0.5), (0.5, 0.9)], None),
        ([(0.0, 9.0), (0.5, 1.0), (1.0, 0.8)], 0.5),
    ],
)
def test_break_even(points, expected):
    assert break_even(points) == (expected if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("fraction", [0.0, 0.125, 0.5, 1.0])
def test_blobs_have_the_share_that_was_asked_for_in_patches(fraction, rng):
    mask = masks.blobs(rng, (4, 28, 28), fraction)
    assert abs(mask.mean() - fraction) < 1e-3
    if 0 < fraction < 1:
        same = (mask[:, 1:] == mask[:, :-1]).mean()
        assert same > 0.9


def test_grids_and_random_masks(rng):
    assert masks.fixed("grid", rng, (4, 6), 0.5).sum() == 12
    assert masks.fixed("grid", rng, (5, 5), 0.25).sum() == 9
    assert masks.fixed("random", rng, (7, 5), 0.25).sum() == 8


def case(kind="grid", channels=256, seconds=(1.0, 0.5, 0.4), theory=4.0, **more):
    values = {"layer": "VGG-16 conv3_2", "batch": 8, "output": "nearest", "fraction": 0.25} | more
    values |= {"kind": kind, "channels": channels, "theory": theory, "implementation": "xla"}
    times = dict(zip(("dense", "torch", "ours"), seconds, strict=True))
    return record(kernels.Comparison(seconds=times, **values))


def test_the_summary_compares_with_the_better_dense_convolution():
    rows = summary([case(), case(seconds=(1.0, 2.0, 0.25)), case(channels=3)])
    (row,) = rows
    assert row["cases"] == 2
    assert row["mean"] == pytest.approx((1.25 / 4 + 4 / 4) / 2, abs=1e-3)
    assert row["mean_beside_xla"] == pytest.approx((2.5 / 4 + 1) / 2, abs=1e-3)
    assert row["slowest"] == 1.25
    assert not row["met"]


def test_an_empty_mask_has_no_share():
    empty = case(kind="unit", layer="ResNet-101 conv4", fraction=0.0, theory=float("inf"))
    assert empty["share"] is None
    assert json.loads(json.dumps(empty))["theory"] is None
    assert summary([empty])[0]["name"].endswith("nothing active")


def test_a_figure_is_drawn():
    cases = [case(), case(fraction=1.0), case(kind="masked")]
    svg = draw(cases)
    assert svg.count("<svg") == 1
    assert "Regular grid, fixed" in svg
    assert "One convolution, run-time mask" in svg
    assert "Random positions, fixed" not in svg
    assert draw(cases) == svg


@pytest.mark.parametrize("kind", kernels.KINDS)
def test_every_kind_of_comparison_runs(kind):
    settings = kernels.Settings(
        kinds=(kind,), pattern="ResNet-32 conv4", batches=(1,), keeps=(0.25,), fractions=(0.25,),
        seconds=0.0,
    )  # fmt: skip
    comparisons = list(kernels.compare(settings))
    assert comparisons
    for comparison in comparisons:
        assert comparison.kind == kind
        assert all(value > 0 for value in comparison.seconds.values())
        expected = 1 / comparison.fraction
        if kind == "unit":
            # The first of two 3x3 convolutions is needed on the dilated mask.
            assert 1 < comparison.theory < expected
        else:
            assert comparison.theory == pytest.approx(expected)


def test_the_layers_are_the_networks_own():
    sizes = {layer.label: layer.output_size for layer in LAYERS}
    assert sizes["AlexNet conv1"] == 55
    assert sizes["VGG-16 conv5_2"] == 14
    macs = {layer.label: layer.macs for layer in LAYERS}
    assert macs["ResNet-101 conv4"] == 14 * 14 * 9 * 256 * 256
    assert macs["AlexNet conv2"] == 27 * 27 * 25 * 48 * 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["VGG-16 conv9"], "no layer matches 'VGG-16 conv9'"),
        (["--keep", "0"], "keep"),
        (["--keep", "0.3"], "0.5 or 0.25"),
        (["--active", "1.5"], "active"),
        (["--batch", "0"], "batch"),
        (["--implementation", "cuda"], "--implementation is 'cuda'"),
        (["--torch-python", "/nowhere/python", "ResNet-32 conv4"], "--torch-python"),
        (["--implementation", "mosaic_tpu", "ResNet-32 conv4"], "needs a TPU"),
    ],
)
def test_a_mistake_is_named(arguments, message):
    with pytest.raises(UserError, match=message):
        bench_kernels.main(arguments)


def test_tuning_writes_the_table_that_the_kernels_read(tmp_path):
    layer = Layer("test", "conv", size=4, channels=16, outputs=16)
    tiles = [TileConfig(16, 16, 16), TileConfig(32, 16, 16)]
    best = tune_layer(
        layer, batch=1, keep=0.5, dtype="float32", implementation="pallas_triton",
        device_kind="Test 1", folder=tmp_path, seconds=0.0, tiles=tiles, interpret=True,
    )  # fmt: skip
    (entry,) = read_table("Test 1", "perforated_conv", tmp_path)["implementations"][
        "pallas_triton"
    ].values()
    assert entry["tile"] == dataclasses.asdict(best)
    assert len(entry["candidates"]) == 2


def test_tuning_needs_the_device():
    with pytest.raises(UserError, match="needs a GPU"):
        bench_autotune.main([])
    with pytest.raises(UserError, match="no layer matches"):
        bench_autotune.main(["LeNet*"])


def test_settings_are_plain_values():
    assert json.loads(json.dumps(dataclasses.asdict(kernels.Settings())))["dtype"] == "float32"
    assert np.isfinite(kernels.Settings().most_macs)
