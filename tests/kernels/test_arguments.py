"""NumPy arrays are as good as JAX arrays, and a wrong argument is named in one line."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import compact_tensor, masked_conv, masked_unit, perforated_conv
from kernels.masked_conv import choose as choose_masked
from kernels.masked_unit import BlockState, logit_map, masked_unit_with_sums
from kernels.perforated_conv import avg_pool, global_avg_pool, max_pool, min_pool, sum_pool
from kernels.perforated_conv import choose as choose_perforated

_RNG = np.random.default_rng(0)
X, W = _RNG.standard_normal((2, 4, 4, 6)), _RNG.standard_normal((3, 3, 6, 6))
MASK = _RNG.random((2, 4, 4)) < 0.5
KEPT = np.zeros((4, 4), bool)
KEPT[::2, 1:] = True
BIAS = np.ones(6)


def values(x):
    return compact_tensor(x.reshape(2, 16, 6)[:, : KEPT.sum()], KEPT)


OPERATIONS = {
    "masked": lambda x, w: masked_conv(x, w, MASK, bias=BIAS, implementation="xla"),
    # Nothing is padded, so that the inputs reach the gathering as they are.
    "masked, valid": lambda x, w: masked_conv(
        x, w, MASK[:, :2, :2], padding="VALID", implementation="xla"
    ),
    "masked, dense": lambda x, w: masked_conv(x, w, MASK, implementation="dense"),
    "perforated": lambda x, w: perforated_conv(x, w, KEPT, bias=BIAS, implementation="xla"),
    "perforated, valid": lambda x, w: perforated_conv(
        x, w, KEPT[:2, :2] | True, padding="VALID", implementation="xla"
    ),
    "pointwise": lambda x, w: perforated_conv(x, w[:1, :1], KEPT, implementation="xla"),
    "compact input": lambda x, w: perforated_conv(values(x), w, KEPT),
    "filled": lambda x, w: values(x).filled() * w[0, 0, 0, 0],
    "max_pool": lambda x, w: max_pool(values(x), (2, 2)) * w[0, 0, 0, 0],
    "min_pool": lambda x, w: min_pool(values(x), 3, 1, 1) * w[0, 0, 0, 0],
    "sum_pool": lambda x, w: sum_pool(values(x), (2, 2), (1, 2), "SAME") * w[0, 0, 0, 0],
    "avg_pool": lambda x, w: avg_pool(values(x), [2, 2]) * w[0, 0, 0, 0],
    "global_avg_pool": lambda x, w: global_avg_pool(values(x)) * w[0, 0, 0, 0],
    "unit": lambda x, w: masked_unit(x, MASK, (w, w), (BIAS, None), scale=BIAS),
    "sparse unit": lambda x, w: masked_unit(x, MASK, [w, w], execution_path="sparse"),
    "unit with sums": lambda x, w: (
        masked_unit_with_sums(
            BlockState(x, x, x.sum((1, 2))), MASK, (w,), share=MASK.astype(np.float32)
        ).total
    ),
    "logit map": lambda x, w: jnp.where(MASK, logit_map(x, w[..., 0], MASK), 0),
}


# Those that compile most; the quick ones have every kind of conversion.
_SLOW = (
    "masked",
    "masked, valid",
    "unit",
    "unit with sums",
    "perforated, valid",
    "min_pool",
    "sum_pool",
    "sparse unit",
)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in _SLOW else ()) for n in OPERATIONS]
)
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype")
def test_numpy_arrays_are_as_good_as_jax_arrays(name):
    operation = OPERATIONS[name]

    def loss(x, w):
        return jnp.sum(jnp.square(operation(x, w)))

    expected = jax.jit(operation)(jnp.asarray(X), jnp.asarray(W))
    # float64 is canonicalised to float32 eagerly as it is under jit.
    for x, w in ((X, W), (X.astype(np.float32), jnp.asarray(W))):
        found = operation(x, w)
        assert found.dtype == expected.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    x, w = X.astype(np.float32), W.astype(np.float32)
    if name == "logit map":  # for inference: its loops have no reverse mode
        return
    expected = jax.jit(jax.grad(loss, (0, 1)))(jnp.asarray(x), jnp.asarray(w))
    for ours, theirs in zip(jax.grad(loss, (0, 1))(x, w), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("implementation", ["xla", "reference"])
@pytest.mark.parametrize("path", [None, "sparse", "dense"])
def test_units_of_no_images(implementation, path):
    path = path if implementation == "xla" else None
    x, mask = np.zeros((0, 4, 4, 6)), np.zeros((0, 4, 4), bool)
    run = functools.partial(masked_unit, execution_path=path, implementation=implementation)
    assert run(x, mask, (W, W)).shape == x.shape
    gradient = jax.grad(lambda w: jnp.sum(run(x, mask, (w, w))))(jnp.asarray(W))
    assert not np.any(gradient)


def test_convolutions_of_no_images():
    x, mask = np.zeros((0, 4, 4, 6)), np.zeros((0, 4, 4), bool)
    for implementation in ("xla", "dense", "reference"):
        for operation, chosen in ((masked_conv, mask), (perforated_conv, KEPT)):
            run = functools.partial(operation, mask=chosen, implementation=implementation)
            assert run(x, W).shape == (0, 4, 4, 6)
            assert not np.any(jax.grad(lambda w, run=run: jnp.sum(run(x, w)))(jnp.asarray(W)))
    none = compact_tensor(np.zeros((0, int(KEPT.sum()), 6)), KEPT)
    assert max_pool(none, 2).shape == (0, 2, 2, 6)
    assert perforated_conv(none, W, KEPT).shape == (0, 4, 4, 6)


def test_one_number_stands_for_both_axes_and_numpy_integers_for_integers():
    one, two = np.int64(1), np.int64(2)
    for options, same in (
        ({"strides": 2, "padding": 1}, {"strides": (2, 2), "padding": ((1, 1), (1, 1))}),
        ({"strides": two, "padding": (one, 0)}, {"strides": [2, 2], "padding": ((1, 1), (0, 0))}),
        ({"strides": (two, one), "groups": two}, {"strides": (2, 1), "groups": 2}),
    ):
        w = jnp.asarray(W[:, :, :3] if "groups" in options else W)
        size = masked_conv_shape(w, same)
        mask = jnp.ones(size[:3], bool)
        options, same = ({**o, "implementation": "dense"} for o in (options, same))
        found = masked_conv(X, w, mask, capacity=two, **options)
        np.testing.assert_array_equal(found, masked_conv(X, w, mask, capacity=2, **same))
        kept = np.ones(size[1:3], bool)
        kept[0, 0] = False
        found = perforated_conv(X, w, kept, **options)
        np.testing.assert_array_equal(found, perforated_conv(X, w, kept, **same))


def masked_conv_shape(w, options):
    padding = options.get("padding", "SAME")
    return jax.lax.conv_general_dilated(
        jnp.asarray(X),
        w,
        options["strides"],
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=options.get("groups", 1),
    ).shape


MOVED = np.arange(16).reshape(4, 4)
MOVED[~KEPT] = 1
MOVED[0, 1] = 2

BAD_CONVOLUTIONS = {
    "x": ({"x": X.tolist()}, "x is list"),
    "x of text": ({"x": np.full((2, 4, 4, 6), "a")}, "x is <U1"),
    "w": ({"w": None}, "w is NoneType None"),
    "channels": ({"x": X[..., :0], "w": W[:, :, :0]}, "x has shape .*at least one channel"),
    "outputs": ({"w": W[..., :0]}, "w has shape .*at least one output"),
    "strides": ({"strides": 0}, r"strides is 0; expected an integer >= 1, or two"),
    "strides, three": ({"strides": (1, 1, 1)}, r"strides is \(1, 1, 1\)"),
    "strides, text": ({"strides": "11"}, "strides is '11'"),
    "strides, fraction": ({"strides": 1.5}, "strides is 1.5"),
    "padding": ({"padding": -1}, 'padding is -1; expected "SAME"'),
    "padding, name": ({"padding": "same-ish"}, "padding is 'same-ish'"),
    "padding, none": ({"padding": None}, "padding is None"),
    "groups": ({"groups": 4}, "groups is 4; expected a divisor of 6"),
    "groups, fraction": ({"groups": 1.5}, "groups is 1.5; expected an integer >= 1"),
    "bias": ({"bias": [0.0] * 6}, r"bias is list .*expected float\[6\]"),
    "bias, scalar": ({"bias": 1.0}, "bias is float 1.0"),
    "bias, shape": ({"bias": np.ones(5)}, r"bias has shape \(5,\); expected \(6,\)"),
    "activation": ({"activation": "gelu"}, "activation is 'gelu'; expected None or \"relu\""),
    "implementation": ({"implementation": 3}, "implementation is 3; expected None, a name"),
    "implementation, name": ({"implementation": "cuda"}, "implementation is 'cuda'; expected"),
}
BAD_MASKED = {
    "mask": ({"mask": MASK.tolist()}, "mask is list"),
    "mask, dtype": ({"mask": MASK.astype(int)}, r"mask is int.*expected bool\[2, 4, 4\]"),
    "capacity": ({"capacity": "a"}, "capacity is 'a'; expected an integer >= 0"),
    "capacity, negative": ({"capacity": -1}, "capacity is -1"),
}
BAD_PERFORATED = {
    "mask": ({"mask": KEPT.tolist()}, r"mask is list .*expected bool\[H', W'\]"),
    "mask, one": ({"mask": True}, "mask is bool True"),
    "nearest": ({"nearest": MOVED}, r"nearest moves kept position 1 to 2; expected nearest\[kept"),
    "nearest, list": ({"nearest": MOVED.tolist()}, "nearest is list"),
    "fill": ({"fill": "mean"}, "fill is 'mean'; expected one of nearest"),
    "fill, none": ({"fill": None}, "fill is None"),
}


@pytest.mark.parametrize(
    ("operation", "bad", "message"),
    [
        pytest.param(operation, bad, message, id=f"{operation.__name__}: {name}")
        for operation, more in ((masked_conv, BAD_MASKED), (perforated_conv, BAD_PERFORATED))
        for name, (bad, message) in (BAD_CONVOLUTIONS | more).items()
    ],
)
def test_a_wrong_argument_of_a_convolution_is_named_in_one_line(operation, bad, message):
    arguments = {"x": X, "w": W, "mask": MASK if operation is masked_conv else KEPT} | bad
    with pytest.raises(ValueError, match=message) as error:
        operation(**arguments)
    assert "\n" not in str(error.value)
    chooses = choose_masked if operation is masked_conv else choose_perforated
    if not {"bias", "activation", "nearest", "fill"} & set(bad):
        with pytest.raises(ValueError, match=message):
            chooses(**arguments)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": X[0]}, r"x has shape \(4, 4, 6\); expected four axes"),
        ({"x": X.tolist()}, "x is list"),
        ({"x": X.astype(int)}, "x has dtype int"),
        ({"x": X[..., :0]}, "x has shape .*at least one channel"),
        ({"mask": MASK.tolist()}, "mask is list"),
        ({"kernels": W}, "kernels is float64.*expected a list or tuple"),
        ({"kernels": ()}, "0 kernels"),
        ({"kernels": (W[..., :0],)}, r"kernels\[0\] has shape .*at least one output"),
        ({"kernels": (W, W.tolist())}, r"kernels\[1\] is list"),
        ({"biases": (BIAS, [0.0])}, r"biases\[1\] is list"),
        ({"biases": (BIAS[:5], None)}, r"biases\[0\] has shape \(5,\); expected \(6,\)"),
        ({"biases": BIAS}, "biases is float64"),
        ({"scale": 1.0}, "scale is float 1.0"),
        ({"shift": BIAS[:2]}, r"shift has shape \(2,\)"),
        ({"negative_slope": "a"}, "negative_slope is 'a'; expected a number"),
        ({"execution_path": "x"}, "execution_path is 'x'; expected None, 'sparse' or 'dense'"),
        ({"implementation": "cuda"}, "implementation is 'cuda'"),
    ],
)
def test_a_wrong_argument_of_a_unit_is_named_in_one_line(bad, message):
    with pytest.raises(ValueError, match=message) as error:
        masked_unit(**{"x": X, "mask": MASK, "kernels": (W, W)} | bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"x": X}, r"x is float64\[2, 4, 4, 6\]; expected a CompactTensor"),
        ({"window": "a"}, "window is 'a'; expected an integer >= 1, or two"),
        ({"strides": 0}, "strides is 0"),
        ({"padding": "all"}, "padding is 'all'"),
    ],
)
def test_a_wrong_argument_of_pooling_is_named_in_one_line(bad, message):
    for pool in (max_pool, min_pool, sum_pool, avg_pool):
        with pytest.raises(ValueError, match=message):
            pool(**{"x": values(X), "window": (2, 2)} | bad)
