"""A residual unit at active positions against the same unit written densely in NumPy."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import convolution
from scipy.ndimage import binary_dilation
from tolerances import close

from kernels import masked_unit, record_implementations
from kernels.masked_unit import (
    IMPLEMENTATIONS,
    BlockState,
    choose,
    dilate,
    masked_unit_with_sums,
)

pytestmark = pytest.mark.core
UNITS = {
    "bottleneck": ((1, 1), (3, 3), (1, 1)),
    "basic": ((3, 3), (3, 3)),
    "uneven": ((5, 3), (1, 1), (1, 3)),
    "single": ((3, 3),),
}
# Units of one or two like convolutions take as long as those of three unlike ones.
over_units = pytest.mark.parametrize(
    "windows",
    [
        pytest.param(u, id=n, marks=pytest.mark.slow if n in ("basic", "single") else ())
        for n, u in UNITS.items()
    ],
)
PATHS = ("sparse", "dense", None)
CONTENDERS = {
    "sparse": {"execution_path": "sparse"},
    "dense": {"execution_path": "dense"},
    "reference": {"implementation": "reference"},
}


def dense(x, mask, kernels, biases, scale, shift):
    y = np.asarray(x, np.float64)
    if scale is not None:
        y = np.maximum(y * np.asarray(scale) + np.asarray(shift), 0)
    for i, (w, bias) in enumerate(zip(kernels, biases, strict=True)):
        y = convolution(y, w, strides=(1, 1), padding="SAME", groups=1) + np.asarray(bias)
        if i < len(kernels) - 1:
            y = np.maximum(y, 0)
    return np.asarray(x, np.float64) + y * mask[..., None]


@over_units
@pytest.mark.parametrize("normalised", [False, True])
def test_it_is_the_dense_unit_at_active_positions(windows, normalised, rng):
    x = jnp.asarray(rng.standard_normal((2, 7, 6, 4)), jnp.float32)
    widths = [4, *[5, 6][: len(windows) - 1], 4]
    kernels = [
        jnp.asarray(rng.standard_normal((*window, i, o)) / 3, jnp.float32)
        for window, i, o in zip(windows, widths, widths[1:], strict=False)
    ]
    biases = [jnp.asarray(rng.standard_normal(w.shape[3]), jnp.float32) for w in kernels]
    # A shift that ReLU lets through: padding must be zero all the same.
    scale, shift = (jnp.full(4, 0.5), jnp.arange(1.0, 5.0)) if normalised else (None, None)
    run = {
        path: jax.jit(
            lambda mask, path=path: masked_unit(
                x, mask, kernels, biases, scale=scale, shift=shift, execution_path=path
            )
        )
        for path in PATHS
    }
    random = rng.random((2, 7, 6)) < 0.3
    for mask in (random, np.zeros_like(random), np.ones_like(random)):
        expected = dense(x, mask, kernels, biases, scale, shift)
        for compute in run.values():
            y = np.asarray(compute(jnp.asarray(mask)))
            close(y, expected, terms=500)
            assert np.array_equal(y[~mask], np.asarray(x)[~mask])


@over_units
@pytest.mark.parametrize("options", CONTENDERS.values(), ids=CONTENDERS.keys())
def test_totals_and_sums_are_updated_over_several_pieces(windows, options, rng):
    """1,150 positions are more than a piece, and the pieces do not end with the images."""
    x = jnp.asarray(rng.standard_normal((2, 23, 25, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3, jnp.float32) for w in windows]
    share = jnp.asarray(rng.random((2, 23, 25)), jnp.float32)
    mask = rng.random((2, 23, 25)) < 0.8
    start = BlockState(x, 2 * x, jnp.sum(x, axis=(1, 2)))
    run = jax.jit(lambda s, m: masked_unit_with_sums(s, m, kernels, share=share, **options))
    found = run(start, jnp.asarray(mask))
    biases = [np.zeros(4)] * len(kernels)
    residual = dense(x, mask, kernels, biases, None, None) - np.asarray(x, np.float64)
    close(found.x, np.asarray(x) + residual, terms=500)
    close(found.total, 2 * np.asarray(x) + np.asarray(share)[..., None] * residual, terms=500)
    close(found.sums, (np.asarray(x) + residual).sum((1, 2)), terms=50_000)


@pytest.mark.parametrize("options", CONTENDERS.values(), ids=CONTENDERS.keys())
@pytest.mark.parametrize("shape", [(0, 5, 6, 4), (2, 0, 3, 4)])
def test_an_empty_batch_gives_an_empty_output(options, shape):
    kernels = [jnp.ones((*w, 4, 4)) for w in UNITS["bottleneck"]]
    mask = jnp.ones(shape[:3], bool)
    state = BlockState(jnp.ones(shape), jnp.ones(shape), jnp.zeros((shape[0], 4)))
    found = masked_unit_with_sums(state, mask, kernels, share=jnp.ones(shape[:3]), **options)
    assert [leaf.shape for leaf in found] == [leaf.shape for leaf in state]


@pytest.mark.parametrize("path", ["sparse", None])
@over_units
def test_gradients_equal_those_of_the_reference(windows, path, rng):
    x = jnp.asarray(rng.standard_normal((2, 5, 7, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3, jnp.float32) for w in windows]
    biases = [jnp.asarray(rng.standard_normal(4), jnp.float32), *[None] * (len(windows) - 1)]
    scale, shift = jnp.full(4, 0.5), jnp.arange(1.0, 5.0)
    share = jnp.asarray(rng.random((2, 5, 7)), jnp.float32)
    mask = jnp.asarray(rng.random((2, 5, 7)) < 0.4)

    def gradients(**options):
        def loss(x, kernels, biases, scale, shift, share):
            state = BlockState(x, 2 * x, jnp.sum(x, axis=(1, 2)))
            found = masked_unit_with_sums(
                state, mask, kernels, biases, share=share, scale=scale, shift=shift, **options
            )
            return sum(jnp.sum(jnp.sin(leaf)) for leaf in found)

        return jax.jit(jax.grad(loss, tuple(range(6))))(x, kernels, biases, scale, shift, share)

    ours, expected = gradients(execution_path=path), gradients(implementation="reference")
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        close(a, b, terms=500, gradient=True)


@pytest.mark.slow
def test_the_dense_path_has_gradients_over_several_pieces(rng):
    x = jnp.asarray(rng.standard_normal((2, 23, 25, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3) for w in UNITS["bottleneck"]]
    mask = jnp.asarray(rng.random((2, 23, 25)) < 0.5)

    def gradients(**options):
        def loss(x, kernels):
            return jnp.sum(masked_unit(x, mask, kernels, **options) ** 2)

        return jax.grad(loss, (0, 1))(x, kernels)

    chex.assert_trees_all_close(
        gradients(execution_path="dense"),
        gradients(implementation="reference"),
        rtol=2e-4,
        atol=1e-3,
    )


def test_a_new_mask_does_not_trace_again(rng):
    kernels = [jnp.ones((3, 3, 4, 4))] * 2
    traces = 0

    @jax.jit
    def run(x, mask):
        nonlocal traces
        traces += 1
        return masked_unit(x, mask, kernels)

    for fraction in (0.0, 0.5, 1.0):
        run(jnp.ones((2, 5, 7, 4)), jnp.asarray(rng.random((2, 5, 7)) < fraction))
    assert traces == 1


def test_the_implementation_that_runs_is_recorded():
    x, mask, kernels = np.ones((1, 4, 5, 4)), np.ones((1, 4, 5), bool), [np.ones((3, 3, 4, 4))]
    with record_implementations() as ran:
        masked_unit(x, mask, kernels)
        masked_unit(x, mask, kernels, implementation="reference")
        masked_unit(x, mask, kernels, execution_path="dense")
        sparse = {"execution_path": "sparse", "implementation": ("reference", "xla")}
        masked_unit(x, mask, kernels, **sparse)
    labels = ["xla:sparse or dense", "reference", "xla:dense", "xla:sparse"]
    assert ran == {"masked_unit": labels}
    choice = choose(x, mask, kernels, **sparse)
    assert choice.label == "xla:sparse"
    assert choice.passed_over == (("reference", "execution_path is 'sparse', which is for xla"),)
    assert "of 20 positions, dense beyond" in choose(x, mask, kernels).detail
    assert set(IMPLEMENTATIONS) == {"xla", "reference"}


@pytest.mark.parametrize("window", [(1, 1), (3, 3), (5, 1), (3, 7)])
def test_dilation(window, rng):
    mask = rng.random((2, 9, 8)) < 0.1
    expected = np.stack([binary_dilation(m, np.ones(window)) for m in mask])
    assert np.array_equal(dilate(jnp.asarray(mask), window), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": jnp.ones((1, 4, 3), bool)}, r"expected bool\[1, 4, 4\]"),
        ({"kernels": [jnp.ones((2, 3, 4, 4))]}, r"kernels\[0\] has shape"),
        ({"kernels": [jnp.ones((3, 3, 4, 5))]}, "the last kernel has 5 outputs"),
        ({"biases": []}, "0 biases for 1 kernels"),
        ({"execution_path": "fast"}, "execution_path is 'fast'; expected None, 'sparse' or"),
        ({"implementation": "cudnn"}, "implementation is 'cudnn'; expected None or one of xla"),
        ({"implementation": ()}, "implementation is an empty sequence"),
    ],
)
def test_a_mistake_is_named(change, message):
    arguments = {
        "x": jnp.ones((1, 4, 4, 4)),
        "mask": jnp.ones((1, 4, 4), bool),
        "kernels": [jnp.ones((3, 3, 4, 4))],
        **change,
    }
    with pytest.raises(ValueError, match=message):
        masked_unit(**arguments)


def test_the_reference_has_no_execution_paths():
    arguments = (jnp.ones((1, 4, 4, 4)), jnp.ones((1, 4, 4), bool), [jnp.ones((3, 3, 4, 4))])
    with pytest.raises(NotImplementedError, match="reference: execution_path is 'dense'"):
        masked_unit(*arguments, execution_path="dense", implementation="reference")


@pytest.mark.parametrize("options", CONTENDERS.values(), ids=CONTENDERS.keys())
@pytest.mark.parametrize("windows", [UNITS["bottleneck"], UNITS["basic"]], ids=["1-3-1", "3-3"])
def test_a_unit_that_activates_its_sum(windows, options, rng):
    x = jnp.asarray(rng.standard_normal((2, 23, 25, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((*w, 4, 4)) / 3, jnp.float32) for w in windows]
    biases = [jnp.asarray(rng.standard_normal(4), jnp.float32) for _ in windows]
    share = jnp.asarray(rng.random((2, 23, 25)), jnp.float32)
    start = BlockState(x, 2 * x, jnp.sum(x, axis=(1, 2)))

    @jax.jit
    def run(state, mask):
        return masked_unit_with_sums(
            state, mask, kernels, biases, share=share, activates_sum=True, **options
        )

    for mask in (rng.random((2, 23, 25)) < 0.6, np.zeros((2, 23, 25), bool)):
        found = run(start, jnp.asarray(mask))
        out = np.maximum(dense(x, np.ones_like(mask), kernels, biases, None, None), 0)
        expected = np.where(mask[..., None], out, np.asarray(x, np.float64))
        change = expected - np.asarray(x, np.float64)
        close(found.x, expected, terms=500)
        assert np.array_equal(np.asarray(found.x)[~mask], np.asarray(x)[~mask])
        close(found.total, 2 * np.asarray(x) + np.asarray(share)[..., None] * change, terms=500)
        close(found.sums, expected.sum((1, 2)), terms=50_000)


def test_gradients_of_a_unit_that_activates_its_sum(rng):
    x = jnp.asarray(rng.standard_normal((1, 5, 6, 4)), jnp.float32)
    kernels = [jnp.asarray(rng.standard_normal((3, 3, 4, 4)) / 3, jnp.float32) for _ in range(2)]
    mask = jnp.asarray(rng.random((1, 5, 6)) < 0.6)

    def loss(x, kernels, **options):
        y = masked_unit(x, mask, kernels, activates_sum=True, negative_slope=0.1, **options)
        return jnp.sum(jnp.sin(y))

    found = jax.jit(jax.grad(loss, (0, 1)))(x, kernels)
    reference = functools.partial(loss, implementation="reference")
    expected = jax.jit(jax.grad(reference, (0, 1)))(x, kernels)
    jax.tree.map(lambda a, b: close(a, b, terms=500), found, expected)
