"""Sources of a tile, tuned tables, autotuning."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kernels._common import tuned
from kernels._common.autotune import autotune, candidates
from kernels._common.gather_conv import mosaic_tpu
from kernels._common.tiling import HEURISTICS, MEBIBYTE, Problem, TileConfig, choose_tile

pytestmark = pytest.mark.core

KIND = "NVIDIA H100 80GB HBM3"
PROBLEMS = [
    Problem(dtype, rows, taps, channels, outputs, groups)
    for dtype in ("float32", "bfloat16")
    for rows, taps, channels, outputs, groups in [
        (1, 1, 1, 1, 1),
        (6272, 9, 256, 256, 1),
        (25088, 1, 512, 128, 1),
        (100352, 9, 256, 256, 1),
        (5832, 25, 48, 128, 2),
        (64, 49, 512, 4096, 1),
        (1000, 9, 1, 1, 96),
    ]
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    tuned._cached_table.cache_clear()
    yield tmp_path
    tuned._cached_table.cache_clear()


def choose(problem, tile=None, kind=KIND):
    return choose_tile(
        problem, op="masked_conv", implementation="pallas_triton", device_kind=kind, tile=tile
    )


def test_explicit_before_tuned_before_heuristic(folder):
    problem, explicit = PROBLEMS[1], TileConfig(16, 16)
    heuristic = HEURISTICS["pallas_triton"](problem)
    assert choose(problem) == heuristic
    best = TileConfig(32, 64, 32, 4, 2)
    autotune(
        problem,
        lambda tile: 1e-3 if tile == best else 2e-3,
        op="masked_conv",
        implementation="pallas_triton",
        device_kind=KIND,
        tiles=[heuristic, best],
    )
    assert choose(problem) == best
    assert choose(problem, explicit) == explicit
    # Another device, and other sizes, are not touched by it.
    assert choose(problem, kind="NVIDIA A100") == heuristic
    assert choose(PROBLEMS[2]) == HEURISTICS["pallas_triton"](PROBLEMS[2])
    # Numbers of rows with the same power of two share a tile.
    assert choose(dataclasses.replace(problem, rows=problem.rows + 1)) == best
    assert choose(dataclasses.replace(problem, rows=2 * problem.rows)) != best


def test_autotune_records_times_and_failures(folder):
    good, slow, broken = TileConfig(32, 32), TileConfig(64, 64), TileConfig(128, 128)

    def time(tile):
        if tile == broken:
            raise RuntimeError("out of shared memory")
        return {good: 1e-3, slow: float("nan")}[tile]

    for problem in PROBLEMS[:2]:
        found = autotune(
            problem,
            time,
            op="masked_conv",
            implementation="pallas_triton",
            device_kind=KIND,
            tiles=[broken, slow, good],
        )
        assert found == good
    path = folder / "nvidia_h100_80gb_hbm3" / "masked_conv.json"
    table = json.loads(path.read_text())
    assert table["device_kind"] == KIND
    entries = table["implementations"]["pallas_triton"]
    assert set(entries) == {problem.key for problem in PROBLEMS[:2]}
    entry = entries[PROBLEMS[0].key]
    assert entry["tile"] == dataclasses.asdict(good)
    assert entry["seconds"] == 1e-3
    assert set(entry["versions"]) == {"jax", "jaxlib"}
    assert [trial.get("error") for trial in entry["candidates"]] == [
        "RuntimeError: out of shared memory",
        None,
        None,
    ]


def test_no_working_tile_is_an_error_and_writes_nothing(folder):
    def time(tile):
        raise RuntimeError("no device")

    with pytest.raises(ValueError, match=r"no tile works .* no device"):
        autotune(PROBLEMS[0], time, op="masked_conv", implementation="mosaic_tpu", device_kind=KIND)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "not a table of tuned tiles"),
        ('{"device_kind": "TPU v4", "implementations": {}}', "is for 'TPU v4'"),
    ],
)
def test_a_damaged_table_is_an_error(folder, text, message):
    path = tuned.table_path(KIND, "masked_conv")
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        choose(PROBLEMS[0])


@pytest.mark.parametrize("value", [0, -16, 2.0, True, "16"])
def test_tiles_are_positive_integers(value):
    with pytest.raises(ValueError, match=r"block_rows is .*; expected an integer >= 1"):
        TileConfig(value, 16)


@pytest.mark.parametrize("implementation", sorted(HEURISTICS))
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.key)
def test_heuristics_and_candidates_keep_the_rules_of_their_kernel(implementation, problem):
    tiles = candidates(problem, implementation)
    assert tiles[0] == HEURISTICS[implementation](problem)
    assert len(set(tiles)) == len(tiles) >= 2
    for tile in tiles:
        if implementation == "pallas_triton":
            for size in (tile.block_rows, tile.block_outputs, tile.block_channels):
                assert size >= 16
                assert size & (size - 1) == 0
            assert tile.block_rows * tile.block_outputs <= 128 * 32 * tile.num_warps
        else:
            assert tile.block_rows % 16 == 0
            assert tile.block_outputs % 128 == 0


@pytest.mark.parametrize("problem", PROBLEMS[1:4], ids=lambda problem: problem.key)
def test_the_tpu_heuristic_stays_below_the_default_limit_of_vmem(problem):
    tile = HEURISTICS["mosaic_tpu"](problem)
    taps = tuple(range(problem.taps))
    plan = mosaic_tpu._make_plan(problem, taps, tile, "relu", True, True)
    assert plan.vmem_bytes < 16 * MEBIBYTE
