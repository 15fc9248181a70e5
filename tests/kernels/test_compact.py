"""Maps of which only kept positions exist, read by the next layer as if they were filled."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_kernels import some
from tolerances import close

from kernels import CompactTensor, compact_tensor, perforated_conv
from kernels.perforated_conv import avg_pool, choose, global_avg_pool, max_pool

pytestmark = pytest.mark.core


@pytest.fixture
def compact(rng) -> CompactTensor:
    mask = some(rng, (7, 6), keep=0.3)
    values = jnp.asarray(rng.standard_normal((2, int(mask.sum()), 4)), jnp.float32)
    return compact_tensor(values, mask)


def test_it_is_what_perforated_conv_kept(rng):
    x = jnp.asarray(rng.standard_normal((2, 7, 6, 3)), jnp.float32)
    w = jnp.asarray(rng.standard_normal((3, 3, 3, 4)), jnp.float32)
    mask = some(rng, (7, 6))
    values = perforated_conv(x, w, mask, fill="compact")
    assert np.array_equal(compact_tensor(values, mask).filled(), perforated_conv(x, w, mask))


@pytest.mark.parametrize(
    ("window", "strides", "padding", "groups"),
    [
        ((3, 3), (1, 1), "SAME", 1),
        ((3, 2), (2, 1), "VALID", 2),
        ((2, 4), (1, 2), ((0, 1), (2, 0)), 1),
        ((1, 1), (1, 1), "SAME", 1),
        ((1, 1), (2, 2), "SAME", 1),
    ],
)
def test_the_next_convolution_reads_through_the_map(compact, window, strides, padding, groups, rng):
    w = jnp.asarray(rng.standard_normal((*window, 4 // groups, 6)), jnp.float32)
    options = {"strides": strides, "padding": padding, "groups": groups, "fill": "compact"}
    size = jax.eval_shape(
        lambda x, w: jax.lax.conv_general_dilated(
            x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        ),
        jax.ShapeDtypeStruct(compact.shape, jnp.float32), w,
    ).shape[1:3]  # fmt: skip
    mask = some(rng, size)

    def loss(values, w, *, filled):
        x = compact.replace(values)
        y = perforated_conv(x.filled() if filled else x, w, mask, **options)
        return jnp.sum(jnp.sin(y)), y

    def run(filled):
        function = jax.value_and_grad(lambda v, w: loss(v, w, filled=filled), (0, 1), has_aux=True)
        return jax.jit(function)(compact.values, w)

    (_, ours), gradients = run(filled=False)
    (_, expected), references = run(filled=True)
    close(ours, expected, terms=36)
    for a, b in zip(gradients, references, strict=True):
        close(a, b, terms=100, gradient=True)


def test_a_pointwise_convolution_on_the_same_mask_never_gathers(compact, rng):
    w = jnp.asarray(rng.standard_normal((1, 1, 4, 8)), jnp.float32)
    mask = compact.plan.mask
    run = lambda values: perforated_conv(compact.replace(values), w, mask, fill="compact")  # noqa: E731
    assert "gather" not in jax.jit(run).lower(compact.values).as_text()
    close(run(compact.values), np.asarray(compact.values) @ np.asarray(w)[0, 0], terms=4)


@pytest.mark.parametrize(
    ("window", "strides", "padding"),
    [((2, 2), None, "VALID"), ((3, 3), (2, 2), "SAME"), ((3, 2), (1, 2), ((1, 1), (0, 1)))],
)
def test_pooling_reads_through_the_map(compact, window, strides, padding):
    filled = compact.filled()
    close(
        max_pool(compact, window, strides, padding),
        nn.max_pool(filled, window, strides or window, padding),
    )
    close(
        avg_pool(compact, window, strides, padding),
        nn.avg_pool(filled, window, strides or window, padding),
        terms=9,
    )


def test_the_global_mean_weighs_values_by_their_copies(compact):
    close(global_avg_pool(compact), np.asarray(compact.filled()).mean((1, 2)), terms=42)


def test_it_passes_through_jit_and_tree_map(compact):
    doubled = jax.jit(lambda t: jax.tree.map(lambda v: 2 * v, t))(compact)
    assert isinstance(doubled, CompactTensor)
    assert doubled.shape == (2, 7, 6, 4)
    close(doubled.filled(), 2 * np.asarray(compact.filled()))


def test_it_says_what_runs_and_what_does_not_fit(compact):
    w = jnp.ones((3, 3, 4, 4))
    mask = np.ones((7, 6), bool)
    assert choose(compact, w, mask).implementation == "xla"
    with pytest.raises(NotImplementedError, match=r"pass x.filled\(\)"):
        perforated_conv(compact, w, mask, implementation="pallas_triton")
    with pytest.raises(ValueError, match="one row per kept position"):
        compact_tensor(jnp.ones((2, 3, 4)), mask)
