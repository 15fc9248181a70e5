"""Convolution at listed rows, interpreted, against a loop in float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from tolerances import close

from kernels._common.gather_conv import gather_conv
from kernels._common.tiling import TileConfig

pytestmark = pytest.mark.core

IMPLEMENTATIONS = ("pallas_triton", "mosaic_tpu")
SMALL = TileConfig(block_rows=16, block_outputs=128, block_channels=16)
WINDOW = (0, 1, 2, 8, 9, 10, 16, 17, 18)


def loop(pixels, w, rows, taps, count=None, bias=None, groups=1, activation=None, residual=None):
    pixels, w = np.asarray(pixels, np.float64), np.asarray(w, np.float64)
    out = np.zeros((len(rows), w.shape[2]))
    per_group, per_output = w.shape[1], w.shape[2] // groups
    for r in range(len(rows) if count is None else min(count, len(rows))):
        for o in range(w.shape[2]):
            g = o // per_output
            for t, tap in enumerate(taps):
                pixel = pixels[rows[r] + tap, g * per_group : (g + 1) * per_group]
                out[r, o] += pixel @ w[t, :, o]
        out[r] += 0 if bias is None else np.asarray(bias, np.float64)
        out[r] += 0 if residual is None else np.asarray(residual[r], np.float64)
        if activation == "relu":
            out[r] = np.maximum(out[r], 0)
    return out


def problem(
    rng, *, size=60, channels=5, outputs=7, rows=21, taps=WINDOW, groups=1, dtype="float32"
):
    def draw(*shape):
        return jnp.asarray(rng.standard_normal(shape), dtype)

    return (
        draw(size, channels),
        draw(len(taps), channels // groups, outputs),
        rng.integers(0, size - max(taps), rows).astype(np.int32),
    )


def check(rng, implementation, *, taps=WINDOW, count=None, extras=False, tile=None, **sizes):
    pixels, w, rows = problem(rng, taps=taps, **sizes)
    options = {"groups": sizes.get("groups", 1)}
    if extras:
        options["bias"] = jnp.asarray(rng.standard_normal(w.shape[2]), w.dtype)
        options["residual"] = jnp.asarray(rng.standard_normal((len(rows), w.shape[2])), w.dtype)
        options["activation"] = "relu"
    # What lies behind the count must not matter.
    given = rows.copy()
    given[len(rows) if count is None else count :] = 2**30
    out = gather_conv(
        pixels,
        w,
        jnp.asarray(given),
        taps=taps,
        count=None if count is None else jnp.int32(count),
        tile=tile,
        implementation=implementation,
        interpret=True,
        **options,
    )
    assert out.dtype == pixels.dtype
    terms = len(taps) * w.shape[1]
    close(out, loop(pixels, w, rows, taps, count, **options), terms=terms, dtype=pixels.dtype)
    return out


slow = pytest.mark.slow


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param({"taps": (0,), "channels": 37, "outputs": 3}, id="1x1"),
        pytest.param({"rows": 1, "channels": 1, "outputs": 1}, id="one-row"),
        pytest.param({"channels": 33, "outputs": 130, "rows": 33}, id="two-output-blocks"),
        pytest.param({"channels": 130, "taps": (0, 1, 8, 9), "rows": 40}, id="many-channels"),
        pytest.param({"taps": (0, 2, 4, 16, 18, 20)}, id="dilated", marks=slow),
        pytest.param({"taps": (7, 0, 3)}, id="irregular", marks=slow),
        pytest.param({"taps": (3, 4, 5, 40, 41)}, id="unequal-runs"),
        pytest.param({"channels": 6, "outputs": 4, "groups": 2, "extras": True}, id="groups"),
        pytest.param(
            {"channels": 5, "outputs": 10, "groups": 5, "taps": (0, 1)}, id="depthwise", marks=slow
        ),
        pytest.param({"dtype": "bfloat16", "channels": 7, "extras": True}, id="bfloat16"),
        pytest.param(
            {"dtype": "bfloat16", "channels": 258, "taps": (0, 8)}, id="bfloat16-wide", marks=slow
        ),
        pytest.param(
            {"dtype": "bfloat16", "channels": 6, "groups": 2, "outputs": 2}, id="bf16-g", marks=slow
        ),
        pytest.param({"dtype": "float16", "extras": True}, id="float16", marks=slow),
    ],
)
def test_equals_the_loop(rng, implementation, sizes):
    check(rng, implementation, tile=SMALL, **sizes)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_heuristics_tile(rng, implementation):
    check(rng, implementation, channels=20, outputs=9, rows=70, count=65, extras=True)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rows_from_the_count_on_are_zero(rng, implementation):
    # Two tiles and a half; bias, residual and unused rows must not leak behind the count.
    taps = (0, 1, 8)
    pixels, w, rows = problem(rng, rows=40, channels=3, taps=taps)
    options = {
        "bias": jnp.asarray(rng.standard_normal(7), jnp.float32),
        "residual": jnp.asarray(rng.standard_normal((40, 7)), jnp.float32),
        "activation": "relu",
    }

    @jax.jit
    def call(rows, count):
        return gather_conv(
            pixels,
            w,
            rows,
            taps=taps,
            count=count,
            tile=SMALL,
            implementation=implementation,
            interpret=True,
            **options,
        )

    for count in (0, 1, 16, 17, 37, 40, 99):
        given = rows.copy()
        given[count:] = 2**30
        out = call(jnp.asarray(given), jnp.int32(count))
        close(out, loop(pixels, w, rows, taps, count, **options), terms=9)
        assert not np.any(np.asarray(out)[count:])
    assert call._cache_size() == 1


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_no_rows(rng, implementation):
    pixels, w, _ = problem(rng)
    rows = jnp.zeros(0, jnp.int32)
    out = gather_conv(pixels, w, rows, taps=WINDOW, implementation=implementation, interpret=True)
    assert out.shape == (0, 7)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_not_a_number_spreads_to_its_windows_only(rng, implementation):
    pixels, w, rows = problem(rng, rows=40)
    pixels = pixels.at[30, 2].set(jnp.nan)
    out = gather_conv(
        pixels, w, jnp.asarray(rows), taps=WINDOW, implementation=implementation, interpret=True
    )
    touched = (rows[:, None] + np.asarray(WINDOW)[None, :] == 30).any(axis=1)
    assert touched.any()
    np.testing.assert_array_equal(np.isnan(np.asarray(out)).all(axis=1), touched)
    np.testing.assert_array_equal(np.isnan(np.asarray(out)).any(axis=1), touched)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_vmap_over_everything_equals_a_loop_of_calls(rng, implementation):
    batch = [problem(rng, rows=20, taps=(0, 1)) for _ in range(3)]
    pixels, w, rows = (jnp.stack([jnp.asarray(b[i]) for b in batch]) for i in range(3))
    counts = jnp.asarray([0, 7, 20], jnp.int32)

    def call(pixels, w, rows, count):
        return gather_conv(
            pixels,
            w,
            rows,
            taps=(0, 1),
            count=count,
            tile=SMALL,
            implementation=implementation,
            interpret=True,
        )

    out = jax.vmap(call)(pixels, w, rows, counts)
    shared = jax.vmap(call, (0, None, None, None))(pixels, w[0], rows[0], counts[2])
    for b in range(3):
        close(out[b], loop(pixels[b], w[b], rows[b], (0, 1), int(counts[b])), terms=10)
        close(shared[b], loop(pixels[b], w[0], rows[0], (0, 1)), terms=10)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_in_a_process_with_x64(rng, implementation):
    with jax.enable_x64(True):
        check(rng, implementation, rows=20, count=18, extras=True, tile=SMALL)


@pytest.mark.parametrize("count", [None, 3, 16])
def test_copies_are_waited_for_and_do_not_race(rng, count):
    # Two tiles of one copy a row: this interpreter knows memory spaces, fills what was never
    # written with NaN, and raises where two accesses are not ordered. It is slow.
    pixels, w, rows = problem(rng, size=20, channels=2, outputs=1, rows=20, taps=(0, 1))
    out = gather_conv(
        pixels,
        w,
        jnp.asarray(rows),
        taps=(0, 1),
        count=None if count is None else jnp.int32(count),
        tile=SMALL,
        implementation="mosaic_tpu",
        interpret=pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan"),
    )
    close(out, loop(pixels, w, rows, (0, 1), count), terms=4)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taps": (0, 1)}, "taps is"),
        ({"taps": (-1, *range(8))}, "taps is"),
        ({"taps": (0, *range(53, 61))}, "taps reaches 60"),
        ({"groups": 2}, "groups is 2"),
        ({"count": jnp.zeros(1, jnp.int32)}, "count is"),
        ({"bias": jnp.zeros(8)}, r"bias is float32\[8\]; expected float32\[7\]"),
        ({"residual": jnp.zeros((21, 7), jnp.bfloat16)}, "residual is bfloat16"),
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"tile": TileConfig(block_rows=24, block_outputs=100)}, "block_"),
    ],
)
def test_a_callers_mistake_is_a_value_error(rng, implementation, change, message):
    pixels, w, rows = problem(rng)
    options = {"taps": WINDOW, "implementation": implementation, "interpret": True} | change
    with pytest.raises(ValueError, match=message):
        gather_conv(pixels, w, jnp.asarray(rows), **options)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_what_a_kernel_cannot_do_is_said(rng, implementation):
    pixels, w, rows = problem(rng)
    with pytest.raises(NotImplementedError, match=r"int32|float32, bfloat16, float16"):
        gather_conv(
            pixels.astype(jnp.int32),
            w.astype(jnp.int32),
            jnp.asarray(rows),
            taps=WINDOW,
            implementation=implementation,
            interpret=True,
        )
    with pytest.raises(NotImplementedError, match=rf"{implementation} needs a (GPU|TPU)"):
        gather_conv(pixels, w, jnp.asarray(rows), taps=WINDOW, implementation=implementation)
