"""Public functions give equal results for NumPy, JAX and traced arrays, and equal gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adaptive_nets import halting, layers, variational
from adaptive_nets.layers import drop_path
from adaptive_nets.perforation.baselines import keep_grid
from adaptive_nets.perforation.filled_loss import fill
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational import deep_weight_prior

_RNG = np.random.default_rng(0)
PROBS = _RNG.uniform(0.1, 0.9, (2, 4, 4, 3))
MAPS = _RNG.standard_normal((2, 4, 4, 6))
MASK = _RNG.random((2, 4, 4)) < 0.5
UNITS = _RNG.integers(1, 4, (2, 4, 4))
SCORES = _RNG.standard_normal((3, 2))
RATE = np.float64(0.3)
KEY = jax.random.key(0)
KERNEL = _RNG.standard_normal((2, 2, 3, 3))
SLICES_GAUSSIAN = deep_weight_prior.fit_gaussian(KERNEL[:, 0], floor=0.1)


def stepped(x, h):
    state = halting.act_step(halting.act_start(x, h.shape), x, h)
    return halting.act_step(state, 2 * x, h, last=True)


def baseline(rewards):
    start = halting.Baseline(np.zeros(2), np.zeros(()))
    updated = halting.update_baseline(start, rewards)
    return updated.value, updated.for_batch(rewards)


class RowPrior:
    """A prior of slices whose latent variables are their first row."""

    kernel_size, latent_size = (3, 3), 3

    def encode(self, slices):
        return deep_weight_prior.Gaussian(slices[:, 0], jnp.square(slices[:, 1]) + 0.5)

    def decode(self, latents):
        mean = jnp.tile(latents[:, None], (1, 3, 1))
        return deep_weight_prior.Gaussian(mean, jnp.square(mean) + 0.5)


PRIOR = RowPrior()

# Name -> (function, arrays).
FUNCTIONS = {
    "act": (halting.act, [PROBS]),
    "active_units": (halting.active_units, [PROBS]),
    "act_step": (stepped, [MAPS, PROBS[..., 0]]),
    "combine_states": (lambda p, x: halting.combine_states(p, [x, 2 * x, x]), [PROBS, MAPS]),
    "sample_indicators": (lambda p: halting.sample_indicators(KEY, p), [PROBS]),
    "threshold_indicators": (halting.threshold_indicators, [PROBS]),
    "stopping_unit": (halting.stopping_unit, [PROBS > 0.5]),
    "units_that_run": (lambda n: halting.units_that_run(n, 3), [UNITS]),
    "dilate": (halting.dilate, [MASK]),
    "mask_residual": (halting.mask_residual, [MAPS, MASK]),
    "mask_residual, float": (halting.mask_residual, [MAPS, PROBS[..., 0]]),
    "group_average": (lambda x: halting.group_average(x, np.int64(2)), [MAPS]),
    "spread_groups": (lambda x: halting.spread_groups(x, (8, 4)), [MAPS]),
    "truncated_geometric": (
        lambda r: halting.truncated_geometric(r, np.int64(3)),
        [PROBS[0, 0, 0, 0]],
    ),
    "expected_log_prior": (lambda p: halting.expected_log_prior(p, 0.1), [PROBS]),
    "kl_from_prior": (lambda p: halting.kl_from_prior(p, 0.1), [PROBS]),
    "computation_penalty": (lambda c: halting.computation_penalty([c, c], [0.1, 0.2]), [PROBS]),
    "log_prob_of_units": (halting.log_prob_of_units, [PROBS, UNITS]),
    "decision_log_probs": (halting.decision_log_probs, [PROBS, UNITS]),
    "expected_next_units": (halting.expected_next_units, [PROBS, UNITS]),
    "rewards_to_go": (lambda s: halting.rewards_to_go(s[:, 0], [s[:, 1], s[:, 0]]), [SCORES]),
    "reinforce_loss": (
        lambda s: halting.reinforce_loss(s[:, 0], [s[:, 1]], [s[:, 0]], baseline=0.5),
        [SCORES],
    ),
    "update_baseline": (baseline, [SCORES]),
    "relaxed_bernoulli": (lambda p: halting.relaxed_bernoulli(KEY, p), [PROBS]),
    "survival": (halting.survival, [PROBS]),
    "stick_breaking": (halting.stick_breaking, [PROBS]),
    "log_stick_breaking": (halting.log_stick_breaking, [PROBS]),
    "expected_units": (halting.expected_units, [PROBS]),
    "log_alpha": (variational.log_alpha, [MAPS, MAPS - 3]),
    "log_alpha at zero": (variational.log_alpha, [np.zeros(3), np.zeros(3)]),
    "noise_variance": (variational.noise_variance, [MAPS, MAPS - 3]),
    "kl_log_uniform": (variational.kl_log_uniform, [MAPS]),
    "kl_log_uniform, no limit": (lambda a: variational.kl_log_uniform(a, limit=None), [MAPS]),
    "kl_divergence": (
        lambda t, s: variational.kl_divergence({"fc": {"kernel": t, "log_sigma2": s}}),
        [MAPS, MAPS - 3],
    ),
    "keep_mask": (variational.keep_mask, [MAPS, MAPS - 3]),
    "prune": (
        lambda t, s: variational.prune({"fc": {"kernel": t, "log_sigma2": s}})["fc"]["kernel"],
        [MAPS, MAPS - 3],
    ),
    "sample_linear": (
        lambda x, t, s: variational.sample_linear(KEY, x, t, s * s, jnp.dot),
        [SCORES, SCORES.T, SCORES.T],
    ),
    "linear_warmup": (lambda s: variational.linear_warmup(s, start=0, end=5), [SCORES]),
    "log_normal": (
        lambda x, v: deep_weight_prior.log_normal(x, deep_weight_prior.Gaussian(x - 1, v)),
        [MAPS, MAPS**2 + 0.1],
    ),
    "floored_variance": (deep_weight_prior.floored_variance, [MAPS]),
    "normal_entropy": (deep_weight_prior.normal_entropy, [MAPS]),
    "kl_standard_normal": (deep_weight_prior.kl_standard_normal, [MAPS, MAPS - 3]),
    "truncated_log_alpha": (deep_weight_prior.truncated_log_alpha, [MAPS]),
    "kl_truncated_log_uniform": (deep_weight_prior.kl_truncated_log_uniform, [MAPS - 2]),
    "to_slices": (deep_weight_prior.to_slices, [MAPS]),
    "from_slices": (
        lambda s: deep_weight_prior.from_slices(s, (4, 6, 2, 4)),
        [MAPS.reshape(8, 4, 6)],
    ),
    "negative_elbo": (lambda w: deep_weight_prior.negative_elbo(KEY, w, PRIOR), [KERNEL[:, 0]]),
    "log_density": (
        lambda w: deep_weight_prior.log_density(KEY, w, PRIOR, samples=2),
        [KERNEL[:, 0]],
    ),
    "kl_upper_bound": (
        lambda m, v: deep_weight_prior.kl_upper_bound(KEY, m, v, PRIOR),
        [KERNEL, KERNEL - 3],
    ),
    "SliceGaussian.log_density": (SLICES_GAUSSIAN.log_density, [KERNEL[:, 0]]),
    "SliceGaussian.kl_divergence": (SLICES_GAUSSIAN.kl_divergence, [KERNEL[:, 0], KERNEL[:, 1]]),
    "max_pool": (lambda x: layers.max_pool(x, 3, 2, 1), [MAPS]),
    "max_pool, tiles": (lambda x: layers.max_pool(x, (np.int64(2), 2)), [MAPS]),
    "avg_pool": (lambda x: layers.avg_pool(x, [3, 3], (2, 2), "SAME"), [MAPS]),
    "avg_pool, tiles": (lambda x: layers.avg_pool(x, 2), [MAPS]),
    "global_avg_pool": (layers.global_avg_pool, [MAPS]),
    "adaptive_avg_pool": (lambda x: layers.adaptive_avg_pool(x, (3, 2)), [MAPS]),
    "local_response_norm": (layers.local_response_norm, [MAPS]),
    "channels_to_depth": (lambda x: layers.channels_to_depth(x, groups=2), [MAPS]),
    "depth_to_channels": (lambda x: layers.depth_to_channels(x[..., None]), [MAPS]),
    "stochastic_depth": (
        lambda x: drop_path.stochastic_depth(KEY, x, survival=0.5, train=True, per_example=True),
        [MAPS],
    ),
    "stochastic_depth, test": (
        lambda x: drop_path.stochastic_depth(None, x, survival=0.5, train=False),
        [MAPS],
    ),
    "mean_of_live": (
        lambda x: drop_path.mean_of_live([x, 2 * x], np.array([[True, True]])),
        [MAPS],
    ),
    "fill": (lambda y: fill(y, np.arange(16).reshape(4, 4) // 2 * 2), [MAPS]),
    "keep_grid": (lambda y: keep_grid(y, np.tile([True, False], (4, 2))), [MAPS]),
}


def equal(found, expected):
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_jax_and_traced_arrays_give_equal_results(name):
    function, arrays = FUNCTIONS[name]
    expected = jax.jit(function)(*map(jnp.asarray, arrays))
    equal(function(*arrays), expected)
    equal(function(*map(jnp.asarray, arrays)), expected)
    if not all(array.dtype == np.float64 for array in arrays):
        return
    arrays = [array.astype(np.float32) for array in arrays]

    def total(*arrays):
        results = jax.tree.leaves(function(*arrays))
        return sum(jnp.sum(r) for r in results if jnp.issubdtype(r.dtype, jnp.floating))

    if not any(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in jax.tree.leaves(expected)):
        return
    places = tuple(range(len(arrays)))
    equal(jax.grad(total, places)(*arrays), jax.jit(jax.grad(total, places))(*arrays))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.max_pool(MAPS.tolist(), 2), "x is list"),
        (lambda: layers.max_pool(MAPS[0], 2), r"x has shape \(4, 4, 6\); expected \[N, H, W, C\]"),
        (lambda: layers.max_pool(MAPS, 0), "window is 0; expected an integer >= 1, or two"),
        (lambda: layers.avg_pool(MAPS, 2, (1, 1, 1)), r"strides is \(1, 1, 1\)"),
        (lambda: layers.avg_pool(MAPS, 3, 1, "FULL"), "padding is 'FULL'"),
        (lambda: layers.adaptive_avg_pool(MAPS, 0), "output_size is 0"),
        (lambda: layers.local_response_norm("a"), "x is str 'a'"),
        (lambda: halting.group_average(MAPS, 1.5), "groups is 1.5; expected a positive integer"),
        (lambda: halting.group_average(MAPS[0], 2), "x has shape"),
        (lambda: halting.act("a"), "halting_probs is 'a'"),
        (lambda: halting.dilate(None), "mask is None"),
        (
            lambda: halting.truncated_geometric(0.1, "3"),
            "units is '3'; expected a positive integer",
        ),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(call, message):
    with pytest.raises(UserError, match=message):
        call()
