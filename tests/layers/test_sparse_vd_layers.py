"""Variational layers against the ordinary ones and against their own functions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import PLAIN, SparseConv, SparseDense, SparseVDLayers, max_pool
from adaptive_nets.variational import kl_divergence, prune
from adaptive_nets.variational.sparsity import layer_log_alpha

pytestmark = pytest.mark.core

CASES = {
    "dense": (SparseDense(5), nn.Dense(5), (3, 7)),
    "conv": (SparseConv(5, kernel_size=(3, 3)), nn.Conv(5, (3, 3)), (2, 6, 5, 3)),
    "valid": (
        SparseConv(4, kernel_size=(2, 3), padding="VALID"),
        nn.Conv(4, (2, 3), padding="VALID"),
        (2, 6, 5, 3),
    ),
    "strided": (
        SparseConv(4, kernel_size=(3, 3), strides=(2, 1), padding=((1, 0), (2, 1))),
        nn.Conv(4, (3, 3), strides=(2, 1), padding=((1, 0), (2, 1))),
        (2, 7, 5, 3),
    ),
}
cases = pytest.mark.parametrize("case", CASES)


def initialised(case, key, **changes):
    layer, plain, shape = CASES[case]
    layer = layer.clone(**changes)
    x = jax.random.normal(key, shape)
    variables = layer.init(key, x)
    return layer, plain, x, variables


@pytest.mark.parametrize(
    ("sparse", "plain", "shape"),
    [
        (SparseConv, nn.Conv, (2, 6, 5, 3)),
        (SparseDense, nn.Dense, (2, 3, 5)),
    ],
)
def test_the_arguments_are_those_of_the_plain_layers(sparse, plain, shape, key):
    arguments = (4, (3, 2), 2, 1) if plain is nn.Conv else (4,)
    layer = sparse(*arguments, use_bias=False)
    x = jax.random.normal(key, shape)
    variables = layer.init(key, x)
    assert set(variables["params"]) == {"kernel", "log_sigma2"}
    expected = plain(*arguments, use_bias=False).apply({"params": prune(variables["params"])}, x)
    np.testing.assert_array_equal(layer.apply(variables, x), expected)
    assert layer.apply(variables, x, True, rngs={"noise": key}).shape == expected.shape


@cases
def test_evaluation_with_everything_kept_is_the_plain_layer(case, key):
    layer, plain, x, variables = initialised(case, key, threshold=1e9)
    params = {k: v for k, v in variables["params"].items() if k != "log_sigma2"}
    np.testing.assert_array_equal(layer.apply(variables, x), plain.apply({"params": params}, x))


@cases
def test_evaluation_is_the_pruned_plain_layer_bit_for_bit(case, key):
    layer, plain, x, variables = initialised(case, key)
    spread = 20 * jax.random.uniform(key, variables["params"]["log_sigma2"].shape) - 16
    variables["params"]["log_sigma2"] = spread
    pruned = prune(variables["params"])
    kept = np.mean(np.asarray(pruned["kernel"]) != 0)
    assert 0.05 < kept < 0.99
    np.testing.assert_array_equal(layer.apply(variables, x), plain.apply({"params": pruned}, x))


@cases
def test_training_with_hardly_any_variance_is_evaluation(case, key):
    """The least noise has log α = −8: a standard deviation of e⁻⁴ of each weight."""
    layer, plain, x, variables = initialised(case, key)
    variables["params"]["log_sigma2"] = jnp.full_like(variables["params"]["log_sigma2"], -80.0)
    trained = layer.apply(variables, x, True, rngs={"noise": key})
    square = {"kernel": variables["params"]["kernel"] ** 2, "bias": jnp.full(layer.features, 1e-7)}
    deviation = jnp.exp(-4.0) * jnp.sqrt(plain.apply({"params": square}, x**2))
    distance = jnp.abs(trained - layer.apply(variables, x)) / deviation
    assert 0.3 < float(jnp.median(distance)) < 1.2
    assert float(jnp.max(distance)) < 6


def test_noise_of_a_removed_weight_is_its_variance_unless_it_is_clipped(key):
    x = jnp.ones((4000, 1))
    params = {
        "kernel": jnp.full((1, 1), 1e-6),
        "log_sigma2": jnp.full((1, 1), -2.0),
        "bias": jnp.zeros(1),
    }
    for clip, deviation in ((False, np.exp(-1.0)), (True, np.sqrt(np.exp(8.0) * 1e-12 + 1e-8))):
        layer = SparseDense(1, clip_noise=clip)
        y = layer.apply({"params": params}, x, True, rngs={"noise": key})
        assert float(jnp.std(y)) == pytest.approx(deviation, rel=0.05)


@cases
def test_training_needs_noise_and_evaluation_does_not(case, key):
    layer, _, x, variables = initialised(case, key)
    layer.apply(variables, x)
    with pytest.raises(Exception, match="noise"):
        layer.apply(variables, x, True)


@cases
def test_noise_changes_with_the_key(case, key):
    layer, _, x, variables = initialised(case, key)
    first, second = (
        layer.apply(variables, x, True, rngs={"noise": jax.random.key(i)}) for i in (1, 2)
    )
    assert not np.array_equal(first, second)


@cases
def test_jit_equals_eager_and_traces_once(case, key):
    layer, _, x, variables = initialised(case, key)

    traces = []

    @jax.jit
    def apply(variables, x, key):
        traces.append(1)
        return layer.apply(variables, x, True, rngs={"noise": key})

    for i in range(2):
        noise = jax.random.key(i)
        eager = layer.apply(variables, x, True, rngs={"noise": noise})
        close(apply(variables, x, noise), eager, terms=30)
    assert len(traces) == 1


@cases
def test_gradients_are_finite_in_every_parameter(case, key):
    layer, _, x, variables = initialised(case, key)

    def loss(params):
        return jnp.sum(layer.apply({"params": params}, x, True, rngs={"noise": key}) ** 2)

    gradients = jax.grad(loss)(variables["params"])
    assert set(gradients) == {"kernel", "log_sigma2", "bias"}
    for gradient in gradients.values():
        assert np.all(np.isfinite(gradient))
        assert np.any(np.asarray(gradient) != 0)


def removed_weight(layer, shape, key):
    """A layer whose weights are all removed, and its input."""
    x = jax.random.normal(key, shape)
    params = layer.init(key, x)["params"]
    params["log_sigma2"] = jnp.log(params["kernel"] ** 2) + 5.0
    return x, params


def test_a_removed_weight_keeps_its_noise_in_a_dense_layer_and_loses_it_in_a_convolution(key):
    for layer, shape, noisy in (
        (SparseDense(4), (3, 6), True),
        (SparseConv(4), (3, 5, 5, 2), False),
    ):
        x, params = removed_weight(layer, shape, key)
        y = layer.apply({"params": params}, x, True, rngs={"noise": key})
        # What is left of the noise without variance is its floor, 1e-4.
        assert (np.max(np.abs(y)) > 1e-2) == noisy


def test_masking_in_training_takes_the_mean_of_removed_weights_away(key):
    layer = SparseDense(4)
    x, params = removed_weight(layer, (3, 6), key)
    masked, whole = (
        layer.clone(mask_in_training=m).apply({"params": params}, x, True, rngs={"noise": key})
        for m in (True, False)
    )
    close(whole - masked, x @ params["kernel"], terms=100)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@cases
def test_low_precision_computes_in_its_dtype_with_float32_parameters(case, dtype, key):
    layer, _, x, variables = initialised(case, key)
    low = layer.clone(dtype=dtype)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low.init(key, x)))
    y = low.apply(variables, x)
    assert y.dtype == dtype
    close(y, layer.apply(variables, x), terms=30, dtype=dtype)


def test_kinds_make_layers_that_agree_with_their_names(key):
    class Net(nn.Module):
        kind: object

        @nn.compact
        def __call__(self, x, train=False):
            options = {"train": train, "dtype": jnp.float32}
            x = self.kind.conv(3, (3, 3), name="conv1", strides=(2, 2), **options)(x)
            return self.kind.dense(2, name="fc1", **options)(x.reshape(x.shape[0], -1))

    x = jnp.ones((2, 6, 6, 1))
    plain = Net(PLAIN).init(key, x)["params"]
    sparse = Net(SparseVDLayers(threshold=2.0)).init(key, x)["params"]
    assert jax.tree.map(jnp.shape, plain) == jax.tree.map(jnp.shape, prune(sparse))


@pytest.mark.parametrize(
    ("shape", "window", "strides", "padding"),
    [
        ((2, 6, 4, 3), (2, 2), None, "VALID"),
        ((1, 9, 6, 2), (3, 2), None, "VALID"),
        ((2, 7, 5, 3), (2, 2), None, "VALID"),
        ((2, 8, 8, 1), (3, 3), (2, 2), "SAME"),
    ],
)
def test_max_pool_is_flax_max_pool(shape, window, strides, padding, key):
    x = jax.random.normal(key, shape)
    expected = lambda x: nn.max_pool(x, window, strides or window, padding)  # noqa: E731
    actual = lambda x: max_pool(x, window, strides, padding)  # noqa: E731
    np.testing.assert_array_equal(actual(x), expected(x))
    weight = jax.random.normal(key, expected(x).shape)
    gradients = [
        jax.grad(lambda x, pool=pool: jnp.sum(weight * pool(x)))(x) for pool in (actual, expected)
    ]
    np.testing.assert_array_equal(*gradients)


@cases
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_zero_rows_and_patches_have_finite_gradients(case, dtype, key):
    layer, _, x, variables = initialised(case, key, dtype=dtype)
    x = x.at[1].set(0)

    def loss(params, x):
        y = layer.apply({"params": params}, x, train=True, rngs={"noise": key})
        return jnp.sum(y.astype(jnp.float32))

    for leaf in jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1)))(variables["params"], x)):
        assert np.all(np.isfinite(leaf.astype(jnp.float32)))


@cases
@pytest.mark.parametrize("log_sigma2", [-1e4, 80.0, 89.0, 1e4])
def test_extreme_variances_have_finite_gradients(case, log_sigma2, key):
    layer, _, x, variables = initialised(case, key, mask_in_training=False)
    params = {**variables["params"]}
    params["log_sigma2"] = jnp.full_like(params["log_sigma2"], log_sigma2)
    params["kernel"] = params["kernel"].at[0].set(0)

    def loss(params):
        return jnp.sum(layer.apply({"params": params}, x, train=True, rngs={"noise": key}))

    for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(params)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("layer", [SparseDense, SparseConv])
def test_the_multiplicative_form_starts_from_the_same_posterior(layer, key):
    x = jax.random.normal(key, (5, 6) if layer is SparseDense else (2, 5, 6, 3))
    forms = {form: layer(4, parameterisation=form) for form in ("additive", "multiplicative")}
    variables = {form: module.init(key, x) for form, module in forms.items()}
    rates = {form: layer_log_alpha(v["params"]) for form, v in variables.items()}
    assert "log_sigma2" not in variables["multiplicative"]["params"]
    np.testing.assert_allclose(
        rates["multiplicative"], jnp.clip(rates["additive"], -8, 8), rtol=1e-6
    )
    sampled = [
        module.apply(variables[form], x, train=True, rngs={"noise": key})
        for form, module in forms.items()
    ]
    np.testing.assert_allclose(sampled[0], sampled[1], rtol=1e-4, atol=1e-5)
    divergences = [float(kl_divergence(v["params"])) for v in variables.values()]
    assert divergences[0] == pytest.approx(divergences[1], rel=1e-5)
    pruned = [prune(v["params"], threshold=1.0) for v in variables.values()]
    assert all(set(tree) == {"kernel", "bias"} for tree in pruned)
    np.testing.assert_array_equal(pruned[0]["kernel"], pruned[1]["kernel"])


def test_gradients_of_means_are_noisier_in_the_multiplicative_form(key):
    """With one weight θ and α, ∂y/∂θ is x in the additive form and x(1 + √α·ε) in the other."""
    theta, rate = 0.5, 2.0
    x = jnp.ones((4000, 1))

    def gradients(form, extra):
        layer = SparseDense(
            1, parameterisation=form, mask_in_training=False, clip_noise=False
        )  # fmt: skip

        def outputs(theta):
            params = {"kernel": jnp.full((1, 1), theta), "bias": jnp.zeros(1), **extra}
            return layer.apply({"params": params}, x, train=True, rngs={"noise": key})[:, 0]

        return np.asarray(jax.jvp(outputs, (theta,), (1.0,))[1])

    sigma2 = jnp.full((1, 1), rate + 2 * np.log(theta))
    additive = gradients("additive", {"log_sigma2": sigma2})
    multiplicative = gradients("multiplicative", {"log_alpha": jnp.full((1, 1), rate)})
    np.testing.assert_allclose(additive, 1.0, rtol=1e-5)
    assert multiplicative.mean() == pytest.approx(1.0, abs=0.2)
    assert multiplicative.var() == pytest.approx(np.exp(rate), rel=0.1)
