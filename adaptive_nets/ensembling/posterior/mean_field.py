"""Mean-field variational inference: every kernel is a fully factorised Gaussian [ashukha2020].

The posterior of a weight is N(μ, σ²) and its prior N(0, σ_p²) with σ_p² = 1/(N·wd), the prior that
weight decay wd corresponds to. Biases and batch normalisation stay point estimates. As in the
authors' code a convolution draws one kernel for a batch, and a dense layer is sampled by the local
reparameterisation of `adaptive_nets.variational`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.layers.interception import (
    BIAS,
    KERNEL,
    apply_with,
    kernel_paths,
    replace_leaves,
)
from adaptive_nets.runtime.pytrees import named_key
from adaptive_nets.variational.local_reparameterisation import sample_linear

MEAN, LOG_SIGMA = "mean", "log_sigma"
# Stream of the training step from which weights are drawn.
_STREAM = "noise"


def kl_gaussian(
    mean: Float[Array, "..."], log_sigma: Float[Array, "..."], prior_variance: float
) -> Float[Array, "..."]:
    """Computes KL(N(μ, σ²) || N(0, σ_p²)) = log(σ_p/σ) + (σ² + μ²)/(2 σ_p²) − ½, nats, elementwise.

    Args:
        mean: μ, float[...].
        log_sigma: log σ, float[...].
        prior_variance: σ_p².
    """
    second_moment = jnp.exp(2.0 * log_sigma) + jnp.square(mean)
    return 0.5 * jnp.log(prior_variance) - log_sigma + second_moment / (2 * prior_variance) - 0.5


def sample_gaussian(
    key: PRNGKeyArray, mean: Float[Array, "..."], log_sigma: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Samples μ + σ·ε with ε ~ N(0, 1), elementwise."""
    return mean + jnp.exp(log_sigma) * jax.random.normal(key, mean.shape, mean.dtype)


def init_mean_field(params: Any, *, log_sigma: float = -5.0) -> dict[str, Any]:
    """Returns variational parameters around trained ones.

    Args:
        params: trained parameters, the means.
        log_sigma: initial log σ of every weight.

    Returns:
        {"mean": params, "log_sigma": the same tree with kernels only}.
    """
    return {MEAN: params, LOG_SIGMA: _filled_kernels(params, log_sigma)}


def _filled_kernels(params: Any, value: float) -> dict[str, Any]:
    """Returns the tree of the kernels, filled with a value."""
    found = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            if inner := _filled_kernels(child, value):
                found[name] = inner
        elif name == KERNEL:
            found[name] = jnp.full_like(child, value)
    return found


def kl_divergence(variational: Mapping[str, Any], prior_variance: float) -> Float[Array, ""]:
    """Sums the divergences of all kernels, nats.

    Args:
        variational: parameters of `init_mean_field`.
        prior_variance: σ_p².
    """
    means = kernel_paths(variational[MEAN])
    return sum(
        (
            jnp.sum(kl_gaussian(means[path], log_sigma, prior_variance))
            for path, log_sigma in kernel_paths(variational[LOG_SIGMA]).items()
        ),
        start=jnp.float32(0),
    )


def sample_params(key: PRNGKeyArray, variational: Mapping[str, Any]) -> Any:
    """Samples parameters of the plain network.

    Args:
        key: PRNG key.
        variational: parameters of `init_mean_field`.
    """
    means = kernel_paths(variational[MEAN])
    leaves = {
        f"{path}/{KERNEL}": sample_gaussian(named_key(key, path), means[path], log_sigma)
        for path, log_sigma in kernel_paths(variational[LOG_SIGMA]).items()
    }
    return replace_leaves(variational[MEAN], leaves)


class MeanFieldNetwork:
    """Network with variational parameters, with the `init` and `apply` of a linen module.

    In training, kernels are sampled from the random stream ``noise``; otherwise they are the means.

    Args:
        module: plain network.
        log_sigma: initial log σ of every weight.
    """

    def __init__(self, module: nn.Module, *, log_sigma: float = -5.0):
        self.module, self._log_sigma = module, log_sigma

    def init(self, rngs: Any, x: Array, **options: Any) -> dict[str, Any]:
        """Initialises the variational parameters and the other collections."""
        variables = dict(self.module.init(rngs, x, **options))
        params = init_mean_field(variables.pop("params"), log_sigma=self._log_sigma)
        return {"params": params, **variables}

    def apply(
        self, variables: Any, x: Array, *, train: bool = False, rngs: Any = None, **options: Any
    ) -> Any:
        """Applies the network with sampled kernels in training, with the means otherwise."""
        rest = {name: tree for name, tree in variables.items() if name != "params"}
        variational = variables["params"]
        if not train:
            plain = {"params": variational[MEAN], **rest}
            return self.module.apply(plain, x, train=False, **options)
        key, params = rngs[_STREAM], sample_params(rngs[_STREAM], variational)
        means, sigmas = (kernel_paths(variational[name]) for name in (MEAN, LOG_SIGMA))

        def call(layer: nn.Module, path: str, original: Callable[..., Any], inputs: Array) -> Any:
            if not isinstance(layer, nn.Dense):
                return original(inputs)
            variance = jnp.exp(2.0 * sigmas[path])
            outputs = sample_linear(named_key(key, path), inputs, means[path], variance, jnp.dot)
            bias = layer.get_variable("params", BIAS) if layer.use_bias else None
            return outputs if bias is None else outputs + bias.reshape(1, -1)

        return apply_with(
            self.module, call, {"params": params, **rest}, x, train=True, rngs=rngs, **options
        )


def mean_field_optimiser(
    schedule: Callable[[Any], Any], *, momentum: float = 0.9, sigma_rate: float = 1e-3
) -> optax.GradientTransformation:
    """Builds SGD with momentum for the means, and Adam for log σ [ashukha2020].

    Args:
        schedule: learning rate of the means by step.
        momentum: momentum of the means.
        sigma_rate: learning rate of log σ.
    """

    def labels(params: Any) -> Any:
        return {name: jax.tree.map(lambda _, name=name: name, params[name]) for name in params}

    return optax.partition(
        {MEAN: optax.sgd(schedule, momentum=momentum), LOG_SIGMA: optax.adam(sigma_rate)}, labels
    )


@dataclasses.dataclass(frozen=True)
class MeanFieldPosterior:
    """Networks sampled from the variational posterior, an endless ensemble.

    Attributes:
        variational: parameters of `init_mean_field`, trained.
        others: further collections of the network, such as batch statistics.
    """

    variational: Mapping[str, Any]
    others: Mapping[str, Any]

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Yields samples; sample i has the key ``fold_in(key, i)``."""
        sample = jax.jit(sample_params)
        number = first
        while True:
            params = sample(jax.random.fold_in(key, number), dict(self.variational))
            yield jax.device_get({**self.others, "params": params})
            number += 1
