"""Derivatives of every order and mode equal those of dense convolutions, and finite differences."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import compact_tensor, masked_conv, masked_unit, perforated_conv

SIZE = (2, 4, 5)
_RNG = np.random.default_rng(0)
MASK = _RNG.random(SIZE) < 0.4
KEPT = _RNG.random(SIZE[1:]) < 0.5
KEPT[0, 0] = True
GRID = np.zeros(SIZE[1:], bool)
GRID[::2, 1::2] = True


def masked(x, w, implementation="xla", **options):
    return masked_conv(x, w, MASK, bias=jnp.ones(4), implementation=implementation, **options)


def perforated(x, w, mask, implementation="xla"):
    return perforated_conv(x, w, mask, implementation=implementation)


def compact(x, w, implementation="xla"):
    values = compact_tensor(x.reshape(2, 20, 4)[:, : KEPT.sum()], KEPT)
    return perforated_conv(values, w, KEPT, fill="zeros", implementation=implementation)


def unit(x, w, implementation="xla", execution_path=None):
    path = execution_path if implementation == "xla" else None
    return masked_unit(
        x,
        MASK,
        (w, 0.5 * w),
        (jnp.ones(4), None),
        scale=jnp.full(4, 0.5),
        execution_path=path,
        implementation=implementation,
    )


CASES = {
    "masked, dense or sparse": masked,
    "masked, sparse": functools.partial(masked, groups=2),
    "gathered": functools.partial(perforated, mask=KEPT),
    "strided": functools.partial(perforated, mask=GRID),
    "compact input": compact,
    "unit": unit,
    "sparse unit": functools.partial(unit, execution_path="sparse"),
}


def loss_of(f, x, w):
    return jnp.sum(jnp.sin(f(x, w)))


def derivatives(f, x, w, dx, dw):
    """Gradients, and their derivatives along (dx, dw) in forward and in reverse mode."""
    gradient = jax.grad(functools.partial(loss_of, f), (0, 1))

    def product(x, w):
        return sum(jnp.vdot(g, d) for g, d in zip(gradient(x, w), (dx, dw), strict=True))

    first, second = jax.jvp(gradient, (x, w), (dx, dw))
    return {
        "reverse": first,
        "forward over reverse": second,
        "reverse over reverse": jax.grad(product, (0, 1))(x, w),
    }


def forward(f, x, w, dx, dw):
    """Derivatives along (dx, dw), and theirs in forward and in reverse mode."""

    def along(x, w):
        return jax.jvp(functools.partial(loss_of, f), (x, w), (dx, dw))[1]

    return {
        "forward over forward": jax.jvp(along, (x, w), (dx, dw)),
        "reverse over forward": jax.grad(along, (0, 1))(x, w),
    }


def batched(f, x, w, dx, dw):
    """Gradients of batches of inputs and of weights, and a linearisation with its transpose."""
    loss = functools.partial(loss_of, f)
    xs, ws = jnp.stack([x, dx]), jnp.stack([w, dw])
    value, linear = jax.linearize(f, x, w)
    return {
        "batch of gradients": jax.vmap(jax.grad(loss, (0, 1)), (0, 0))(xs, ws),
        "gradient of a batch": jax.grad(lambda w: jnp.sum(jax.vmap(loss, (0, None))(xs, w)))(w),
        "linearised": linear(dx, dw),
        "transposed": jax.linear_transpose(linear, x, w)(value),
    }


def arrays(groups=1):
    rng = np.random.default_rng(1)
    x, dx = rng.standard_normal((2, *SIZE, 4))
    w, dw = rng.standard_normal((2, 3, 1, 4 // groups, 4))
    return x, w, dx, dw


def compare(derivatives, name):
    """Checks derivatives against those of XLA's dense convolution, which JAX differentiates."""
    f = CASES[name]
    oracle = functools.partial(f, implementation="reference" if "unit" in name else "dense")
    with jax.enable_x64(True):
        operands = arrays(2 if name == "masked, sparse" else 1)
        found = jax.jit(functools.partial(derivatives, f))(*operands)
        expected = jax.jit(functools.partial(derivatives, oracle))(*operands)
    for mode, values in expected.items():
        for ours, theirs in zip(jax.tree.leaves(found[mode]), jax.tree.leaves(values), strict=True):
            assert ours.dtype == jnp.float64
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, err_msg=mode)


def cases(*quick):
    return [pytest.param(n, marks=() if n in quick else pytest.mark.slow) for n in CASES]


@pytest.mark.parametrize("name", cases("sparse unit"))
def test_derivatives_of_gradients(name):
    compare(derivatives, name)


@pytest.mark.parametrize("name", cases("gathered"))
def test_derivatives_of_forward_mode(name):
    compare(forward, name)


@pytest.mark.parametrize("name", cases("masked, sparse"))
def test_batches_and_linearisations(name):
    compare(batched, name)


@pytest.mark.parametrize("name", ["gathered"])
def test_second_derivatives_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        x, w, dx, dw = arrays()
        gradient = jax.jit(jax.grad(functools.partial(loss_of, CASES[name]), (0, 1)))
        step = 1e-5
        after, before = (
            gradient(x + step * dx, w + step * dw),
            gradient(x - step * dx, w - step * dw),
        )
        found = jax.jit(lambda: jax.jvp(gradient, (x, w), (dx, dw))[1])()
        for ours, high, low in zip(found, after, before, strict=True):
            np.testing.assert_allclose(ours, (high - low) / (2 * step), rtol=1e-6, atol=1e-6)


def test_the_gradient_of_the_weights_alone_gathers_no_input_gradient():
    x, w, _, _ = (jnp.asarray(a, jnp.float32) for a in arrays())
    program = str(jax.make_jaxpr(jax.grad(lambda w: jnp.sum(masked(x, w))))(w))
    assert "wanted=w" in program
    assert "wanted=x" not in program
