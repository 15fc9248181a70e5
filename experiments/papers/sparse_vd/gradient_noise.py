"""Variance of the stochastic gradient of θ, in the multiplicative and in the additive form.

Both forms have the same posterior and the same noise; they differ in the variable that is held
fixed while θ changes, log α or log σ². One backward pass per draw measures both:

- Local noise, that of training: since log σ² = log α + log θ², the chain rule gives
  ∂L/∂θ|α = ∂L/∂θ|σ + (2/θ)·∂L/∂log σ².
- Sampled weights, the case of the paper's argument [molchanov2017, sec. 4.1]: with w = θ + σ·ε,
  ∂L/∂θ|σ = ∂L/∂w and ∂L/∂θ|α = ∂L/∂w·(1 + √α·ε). One sample serves the whole batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.data.splits import Split
from adaptive_nets.layers.sparse_vd import NOISE
from adaptive_nets.models import logits_of
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.variational.log_uniform import LOG_ALPHA_LIMIT, noise_variance
from adaptive_nets.variational.sparsity import variational_layers
from experiments.papers.sparse_vd.configs.parameterisation import FORMS
from experiments.suite.experiment import Metric

EDGES = np.linspace(-LOG_ALPHA_LIMIT, LOG_ALPHA_LIMIT, 33)
"""Edges of the bins of log α."""
DRAWS_PER_EVALUATION = 16
"""Draws at every evaluation, which follows hundreds of steps."""
DRAWS_AFTER_TRAINING = 256
"""Largest number of draws after training."""
_STEPS_PER_DRAW = 40

Loss = Callable[[Any, PRNGKeyArray, Any], Float[Array, ""]]
"""(parameters, key of the noise, batch) -> data term."""

Gradients = Callable[[Any, PRNGKeyArray, Any], dict[str, dict[str, Array]]]
"""(parameters of the additive form, key of one draw, batch) -> form -> layer -> gradient of θ."""


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of the gradient of one layer's θ over draws of the noise.

    Attributes:
        mean: mean gradient, float32, of the shape of θ.
        variance: unbiased variance, same shape.
    """

    mean: np.ndarray
    variance: np.ndarray


@dataclasses.dataclass(frozen=True)
class NoiseSummary:
    """Summary of the gradients of some weights.

    Attributes:
        weights: number of weights.
        median_variance: median of the variance over weights; NaN without weights.
        mean_variance: its mean.
        signal_to_noise: median of |mean gradient| / standard deviation. Over S draws a gradient of
            mean 0 shows about 0.67/√S.
    """

    weights: int
    median_variance: float
    mean_variance: float
    signal_to_noise: float


EstimateMoments = Callable[..., dict[str, dict[str, Moments]]]
"""(parameters of either form, key, batch, *, draws) -> form -> layer -> moments."""


def as_additive(params: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces log α of the multiplicative form by log σ² = log α + log θ².

    Parameters of the additive form are returned unchanged. If θ is zero, log σ² is finite and
    `adaptive_nets.variational.log_alpha` recovers log α.
    """
    if "kernel" in params and "log_alpha" in params:
        theta, rates = params["kernel"], params["log_alpha"]
        square = 2.0 * jnp.log(jnp.maximum(jnp.abs(theta), jnp.finfo(theta.dtype).tiny))
        others = {name: leaf for name, leaf in params.items() if name != "log_alpha"}
        return {**others, "log_sigma2": rates + square}
    return {
        name: as_additive(child) if isinstance(child, Mapping) else child
        for name, child in params.items()
    }


def _layers(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (path, leaves) of every variational layer of the additive form."""
    if "log_sigma2" in tree:
        yield path, tree
    for name, child in tree.items():
        if isinstance(child, Mapping):
            yield from _layers(child, f"{path}/{name}" if path else name)


def _over_theta(values: Array, theta: Array) -> Array:
    """Divides by θ; without a mean there is no noise and the quotient is zero."""
    vanishes = jnp.abs(theta) < jnp.finfo(theta.dtype).tiny
    return jnp.where(vanishes, 0.0, values / jnp.where(vanishes, 1.0, theta))


def local_gradients(loss: Loss) -> Gradients:
    """Builds the gradients of θ with the noise of training.

    Args:
        loss: data term of the network in the additive form.
    """

    def gradients(params, key, batch):
        slopes = dict(_layers(jax.grad(loss)(params, key, batch)))
        found: dict[str, dict[str, Array]] = {form: {} for form in FORMS}
        for layer, leaves in _layers(params):
            slope = slopes[layer]
            moved = _over_theta(2.0 * slope["log_sigma2"], leaves["kernel"])
            found["additive"][layer] = slope["kernel"]
            found["multiplicative"][layer] = slope["kernel"] + moved
        return found

    return gradients


def sampled_gradients(loss: Loss, *, clip_noise: bool = True) -> Gradients:
    """Builds the gradients of θ with weights that are sampled once for the whole batch.

    Args:
        loss: data term of the plain network, whose kernels are the sampled weights; its key is
            unused.
        clip_noise: whether the noise variance uses the clipped log α, as in the layers.
    """

    def gradients(params, key, batch):
        noise = {}
        for i, (layer, leaves) in enumerate(_layers(params)):
            theta, log_sigma2 = leaves["kernel"], leaves["log_sigma2"]
            sigma2 = noise_variance(theta, log_sigma2) if clip_noise else jnp.exp(log_sigma2)
            draw = jax.random.normal(jax.random.fold_in(key, i), theta.shape)
            noise[layer] = jnp.sqrt(sigma2) * draw
        means = {layer: leaves["kernel"] for layer, leaves in _layers(params)}
        weights = jax.tree.map(jnp.add, means, noise)
        slopes = jax.grad(lambda w: loss(_plain(params, w), key, batch))(weights)
        # 1 + √α·ε = 1 + σ·ε/θ.
        factors = jax.tree.map(lambda n, theta: 1.0 + _over_theta(n, theta), noise, means)
        return {"additive": slopes, "multiplicative": jax.tree.map(jnp.multiply, slopes, factors)}

    return gradients


def _plain(params: Mapping[str, Any], weights: Mapping[str, Array], path: str = "") -> Any:
    """Returns the parameters of the plain network with the given kernels."""
    if "log_sigma2" in params:
        others = {name: leaf for name, leaf in params.items() if name != "log_sigma2"}
        return {**others, "kernel": weights[path]}
    return {
        name: _plain(child, weights, f"{path}/{name}" if path else name)
        if isinstance(child, Mapping)
        else child
        for name, child in params.items()
    }


def make_gradient_moments(gradients: Gradients) -> EstimateMoments:
    """Builds a function that estimates the moments of the gradient of θ over draws.

    Args:
        gradients: gradients of one draw.

    Returns:
        Function (params, key, batch, *, draws) -> form -> layer -> moments, for parameters of
        either form and at least two draws. The draws are computed one after another and only their
        running moments are kept (Welford's algorithm, which does not cancel if a deviation is far
        below its mean). The loop is on the host: inside a loop on the device, XLA's CPU backend
        computes the gradients of convolutions on one thread.
    """

    @functools.partial(jax.jit, donate_argnums=0)
    def add_draw(moments, params, key, number, batch):
        count = (number + 1).astype(jnp.float32)

        def update(running, value):
            mean, squares = running
            difference = value - mean
            mean = mean + difference / count
            return mean, squares + difference * (value - mean)

        found = gradients(params, jax.random.fold_in(key, number), batch)
        return jax.tree.map(update, moments, found, is_leaf=lambda x: isinstance(x, tuple))

    def estimate(
        params: Mapping[str, Any], key: PRNGKeyArray, batch: Any, *, draws: int
    ) -> dict[str, dict[str, Moments]]:
        if draws < 2:
            raise ValueError(f"draws is {draws}; expected at least 2, for a variance")
        additive = as_additive(params)
        moments = {
            form: {
                layer: (jnp.zeros_like(leaves["kernel"]), jnp.zeros_like(leaves["kernel"]))
                for layer, leaves in _layers(additive)
            }
            for form in FORMS
        }
        for number in range(draws):
            moments = add_draw(moments, additive, key, np.int32(number), batch)
        return {
            form: {
                layer: Moments(np.asarray(mean), np.asarray(squares) / (draws - 1))
                for layer, (mean, squares) in layers.items()
            }
            for form, layers in moments.items()
        }

    return estimate


def draws_after_training(steps: int) -> int:
    """Returns the number of draws after so many steps: two kinds of noise take 1/20 of them."""
    return max(2, min(DRAWS_AFTER_TRAINING, steps // _STEPS_PER_DRAW))


def _summary(moments: Moments, chosen: np.ndarray) -> NoiseSummary:
    mean, variance = moments.mean[chosen], moments.variance[chosen]
    if not mean.size:
        return NoiseSummary(0, np.nan, np.nan, np.nan)
    deviation = np.sqrt(variance)
    ratio = np.full(mean.shape, np.inf, np.float32)
    np.divide(np.abs(mean), deviation, out=ratio, where=deviation > 0)
    ratio[(mean == 0) & (deviation == 0)] = 0.0
    return NoiseSummary(
        mean.size, float(np.median(variance)), float(np.mean(variance, dtype=np.float64)),
        float(np.median(ratio)),
    )  # fmt: skip


def compared_weights(moments: Mapping[str, Moments], log_alpha: np.ndarray) -> np.ndarray:
    """Returns the mask of weights at which the two forms can be compared.

    Where log α is clipped, at or beyond ±8, the noise of both forms is proportional to |θ|, so
    there is one form only. Weights without any gradient, such as those of constant pixels or
    dead units, have no noise to compare.

    Args:
        moments: form -> moments of one layer.
        log_alpha: log dropout rates of its weights.
    """
    inside = (log_alpha >= EDGES[0]) & (log_alpha < EDGES[-1])
    moves = [(found.mean != 0) | (found.variance != 0) for found in moments.values()]
    return inside & np.any(moves, axis=0)


def summarise(moments: Mapping[str, Moments], log_alpha: np.ndarray) -> dict[str, NoiseSummary]:
    """Summarises one layer: form -> summary over `compared_weights`."""
    chosen = compared_weights(moments, log_alpha)
    return {form: _summary(found, chosen) for form, found in moments.items()}


def over_rates(
    moments: Mapping[str, Moments], log_alpha: np.ndarray
) -> dict[str, list[NoiseSummary]]:
    """Summarises one layer by bins of log α: form -> summary of each bin between `EDGES`."""
    # Bins include their left edge.
    bins = np.digitize(log_alpha, EDGES) - 1
    bins[~compared_weights(moments, log_alpha)] = -1
    return {
        form: [_summary(found, bins == i) for i in range(len(EDGES) - 1)]
        for form, found in moments.items()
    }


def training_batch(train: Split, like: DeviceSplit, size: int) -> dict[str, Array]:
    """Returns the first training examples as a batch, normalised as those of another split."""
    arrays = {name: jnp.asarray(rows[:size]) for name, rows in train.arrays.items()}
    first = dataclasses.replace(like, arrays=arrays)
    return take_eval_batch(first, jnp.int32(0), batch_size=first.size)


class GradientNoise:
    """Gradient noise of a network on one fixed batch.

    Args:
        model: network in the additive form, with the noise of training.
        plain: the network without noise.
        train: training set, whose first examples are the batch.
        batch_size: number of these examples.
        clip_noise: whether the noise variance uses the clipped log α.
        label_smoothing: label smoothing of the data term, the mean cross-entropy.
    """

    def __init__(
        self,
        model: nn.Module,
        plain: nn.Module,
        train: Split,
        *,
        batch_size: int,
        clip_noise: bool = True,
        label_smoothing: float = 0.0,
    ):
        def loss(network, params, key, data):
            state, batch = data
            variables = {**state, "params": params}
            output = network.apply(variables, batch["image"], train=True, rngs={NOISE: key})
            logits = logits_of(output)
            return jnp.mean(cross_entropy(logits, batch["label"], label_smoothing=label_smoothing))

        local = local_gradients(functools.partial(loss, model))
        sampled = sampled_gradients(functools.partial(loss, plain), clip_noise=clip_noise)
        self._local, self._sampled = map(make_gradient_moments, (local, sampled))
        self._train, self._batch_size = train, batch_size

    def _measure(
        self, estimate: EstimateMoments, variables: Any, like: DeviceSplit, draws: int
    ) -> Iterator[tuple[str, dict[str, Moments], np.ndarray]]:
        """Yields (layer, form -> moments, log α)."""
        batch = training_batch(self._train, like, self._batch_size)
        state = {name: tree for name, tree in variables.items() if name != "params"}
        params = variables["params"]
        found = estimate(params, jax.random.key(0), (state, batch), draws=draws)
        for layer, _, rates in variational_layers(params):
            yield layer, {form: found[form][layer] for form in FORMS}, np.asarray(rates)

    def assess(self, variables: Any, test: DeviceSplit) -> dict[str, float]:
        """Returns the median variance of each layer in both forms, to log over training.

        Args:
            variables: variables of the network, in either form.
            test: test set, for its normalisation.
        """
        measured = self._measure(self._local, variables, test, DRAWS_PER_EVALUATION)
        return {
            f"gradient_variance/{form}/{layer}": summary.median_variance
            for layer, moments, rates in measured
            for form, summary in summarise(moments, rates).items()
        }

    def after_training(
        self, variables: Any, test: DeviceSplit, *, draws: int
    ) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:
        """Measures a trained network with more draws, also with sampled weights.

        Args:
            variables: variables of the network, in either form.
            test: test set, for its normalisation.
            draws: number of draws.

        Returns:
            Metrics ``gradient_NAME.FORM.LAYER``, NAME being ``variance`` (median over weights),
            ``mean_variance`` or ``snr`` (median of the signal-to-noise ratio); and arrays of the
            same names with one value per bin of log α, NaN without weights in the bin. For sampled
            weights, all have the prefix ``sampled_``. Further arrays: ``gradient_edges``,
            ``gradient_draws`` and ``gradient_weights.LAYER``, the number of weights per bin.
        """
        metrics: dict[str, Metric] = {}
        arrays: dict[str, np.ndarray] = {
            "gradient_edges": EDGES,
            "gradient_draws": np.array(draws),
        }
        for prefix, estimate in (("", self._local), ("sampled_", self._sampled)):
            measured = self._measure(estimate, variables, test, draws)
            for layer, moments, rates in measured:
                bins = over_rates(moments, rates)
                for form, summary in summarise(moments, rates).items():
                    for name, attribute, unit in _MEASURES:
                        key = f"{prefix}gradient_{name}.{form}.{layer}"
                        metrics[key] = _metric(getattr(summary, attribute), unit, summary.weights)
                        values = [getattr(found, attribute) for found in bins[form]]
                        arrays[key] = np.array(values, np.float32)
                if not prefix:
                    counts = [found.weights for found in bins[FORMS[0]]]
                    arrays[f"gradient_weights.{layer}"] = np.array(counts, np.int32)
        return metrics, arrays


# (name in records, attribute of the summary, unit)
_MEASURES = (
    ("variance", "median_variance", "nats²"),
    ("mean_variance", "mean_variance", "nats²"),
    ("snr", "signal_to_noise", "x"),
)


def _metric(value: float, unit: str, weights: int) -> Metric:
    if not weights:
        return Metric(None, unit, 0, "undefined: no weight has |log α| below the clip")
    if not np.isfinite(value):
        return Metric(None, unit, weights, "infinite: no noise")
    return Metric(value, unit, weights)
