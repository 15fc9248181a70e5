"""Baseline priors of the weights, and the penalty of deterministic networks.

The standard normal prior is `densities.kl_standard_normal`. All divergences are in nats.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import path_name
from adaptive_nets.variational.deep_weight_prior.arguments import (
    as_floats,
    check_floor,
    check_slices,
)
from adaptive_nets.variational.deep_weight_prior.densities import FLOOR
from adaptive_nets.variational.deep_weight_prior.slices import convolution_kernels

# Polynomial of [kingma2015] for dropout rates of at most 1.
C1, C2, C3 = 1.16145124, -1.50204118, 0.58629921
INITIAL_RATE_LOGIT = -2.0
"""Initial logit of the dropout rate α of the log-uniform baseline [atanov2019]."""


def truncated_log_alpha(logit: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes log α of the dropout rate α = sigmoid(logit) <= 1 [atanov2019].

    The noise of a weight θ is then `variational.multiplicative_variance` of θ and log α.

    Args:
        logit: float[...].
    """
    return jax.nn.log_sigmoid(jnp.asarray(logit))


def kl_truncated_log_uniform(log_alpha: Float[Array, "..."]) -> Float[Array, "..."]:
    """Computes −½·log α − c1·α − c2·α² − c3·α³ for α <= 1, nats, elementwise [kingma2015].

    The additive constant is dropped, as in the code of [atanov2019]: the prior is improper, and the
    values are comparable among posteriors, not among priors.

    Args:
        log_alpha: log α, float[...]; values above 0 count as 0, the truncation.
    """
    log_alpha = jnp.minimum(jnp.asarray(log_alpha), 0.0)
    alpha = jnp.exp(log_alpha)
    return -0.5 * log_alpha - alpha * (C1 + alpha * (C2 + alpha * C3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SliceGaussian:
    """Gaussian distribution of slices with full covariance, the learned Gaussian of [atanov2019].

    Attributes:
        mean: μ, float[h, w].
        cholesky: lower triangular factor of the covariance Σ of the h·w elements, row-major,
            float[h·w, h·w].
    """

    mean: Float[Array, "h w"]
    cholesky: Float[Array, "D D"]

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of a slice."""
        height, width = self.mean.shape
        return height, width

    def log_density(self, slices: Float[Any, "N h w"]) -> Float[Array, " N"]:
        """Computes log N(w; μ, Σ), nats per slice.

        Args:
            slices: w, float[N, h, w].

        Raises:
            UserError: the slices have another size.
        """
        scaled = self._whiten(check_slices(slices, self.kernel_size))
        size = self.mean.size
        return -0.5 * (
            size * math.log(2 * math.pi) + self._log_determinant() + jnp.sum(scaled**2, axis=1)
        )

    def kl_divergence(
        self, mean: Float[Any, "N h w"], log_variance: Float[Any, "N h w"]
    ) -> Float[Array, " N"]:
        """Computes KL(N(m, diag s²) || N(μ, Σ)) in closed form, nats per slice.

        Args:
            mean: m, float[N, h, w].
            log_variance: log s², float[N, h, w].

        Raises:
            UserError: the slices have another size, or the shapes differ.
        """
        means = check_slices(mean, self.kernel_size)
        log_variances = check_slices(log_variance, self.kernel_size)
        if means.shape != log_variances.shape:
            raise UserError(
                f"log_variance has shape {log_variances.shape}; expected {means.shape}, as mean"
            )
        size = self.mean.size
        precisions = jnp.sum(self._whitening() ** 2, axis=0)
        log_variances = log_variances.reshape(len(means), size)
        return 0.5 * (
            jnp.exp(log_variances) @ precisions
            + jnp.sum(self._whiten(means) ** 2, axis=1)
            - size
            + self._log_determinant()
            - jnp.sum(log_variances, axis=1)
        )

    def sample(self, key: PRNGKeyArray, count: int) -> Float[Array, "N h w"]:
        """Samples slices, float[count, h, w]."""
        shape = (as_integer("count", count, at_least=0), self.mean.size)
        noise = jax.random.normal(key, shape, self.mean.dtype) @ self.cholesky.T
        return self.mean[None] + noise.reshape(count, *self.mean.shape)

    def _whiten(self, slices: Float[Array, "N h w"]) -> Float[Array, "N D"]:
        centred = (slices - self.mean[None]).reshape(len(slices), self.mean.size)
        return centred @ self._whitening().T

    def _whitening(self) -> Float[Array, "D D"]:
        """Computes the inverse factor; a product with it is faster than a solve for many slices."""
        identity = jnp.eye(self.mean.size, dtype=self.cholesky.dtype)
        return solve_triangular(self.cholesky, identity, lower=True)

    def _log_determinant(self) -> Float[Array, ""]:
        return 2.0 * jnp.sum(jnp.log(jnp.diagonal(self.cholesky)))


def fit_gaussian(slices: Float[Any, "N h w"], *, floor: float = FLOOR) -> SliceGaussian:
    """Fits mean and full covariance of slices by maximum likelihood; `floor` is added to variances.

    Moments and the factor are computed in float64, since the covariance of correlated slices is
    close to singular.

    Args:
        slices: float[N, h, w], at least two.
        floor: variance added to every element, which keeps the covariance of few or constant slices
            positive definite.

    Returns:
        The Gaussian, float32.

    Raises:
        UserError: fewer than two slices, slices that are not finite, or a floor that underflows.
    """
    floor = check_floor(floor)
    slices = np.asarray(as_floats("slices", slices, ndim=3, axes="[N, h, w]"), np.float64)
    if len(slices) < 2 or not np.isfinite(slices).all():
        raise UserError(
            f"slices have shape {slices.shape}; expected at least two slices of finite weights"
        )
    flat = slices.reshape(len(slices), -1)
    mean = flat.mean(axis=0)
    covariance = (flat - mean).T @ (flat - mean) / len(flat)
    # The floor may be below the rounding error of large variances.
    try:
        cholesky = np.linalg.cholesky(covariance + floor * np.eye(len(mean)))
    except np.linalg.LinAlgError:
        raise UserError(
            f"floor is {floor:g}: a variance of the slices underflows beside a largest one of "
            f"{covariance.diagonal().max():.3g}; expected a larger floor"
        ) from None
    return SliceGaussian(
        jnp.asarray(mean.reshape(slices.shape[1:]), jnp.float32),
        jnp.asarray(cholesky, jnp.float32),
    )


def l2_penalty(params: Any, coefficient: float, *, layers: str = "*") -> Float[Array, ""]:
    """Computes λ·Σθ² over the kernels and biases of convolutions.

    The penalty of the source networks, with λ = 1e-3, and of the deterministic baseline
    [atanov2019].

    Args:
        params: linen parameter tree.
        coefficient: λ.
        layers: pattern of the paths of layers, such as "conv*".
    """
    chosen = {layer for layer, _ in convolution_kernels(params, layers=layers)}
    total = jnp.zeros((), jnp.float32)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path_name(path).rpartition("/")[0] in chosen:
            total += jnp.sum(jnp.square(jnp.asarray(leaf, jnp.float32)))
    return coefficient * total
