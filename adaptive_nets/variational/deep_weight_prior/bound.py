"""Doubly stochastic upper bound on the divergence of a posterior from a deep weight prior.

The prior's density is an integral over latent variables, so the divergence is intractable.
Replacing −log p(w) by the negative ELBO of the prior model gives

    KL(q(w) || p(w)) <= −H(q) + E_q(w) [KL(r(z|w) || p(z)) − E_r(z|w) log p(w|z)],

with a gap of E_q KL(r(z|w) || p(z|w)) [atanov2019].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import named_key
from adaptive_nets.variational.deep_weight_prior.arguments import (
    as_floats,
    check_kernel_size,
    check_log_variance,
)
from adaptive_nets.variational.deep_weight_prior.densities import (
    Gaussian,
    normal_entropy,
    sample_normal,
)
from adaptive_nets.variational.deep_weight_prior.elbo import SlicePrior, negative_elbo, over_draws
from adaptive_nets.variational.deep_weight_prior.slices import Layout, to_slices


def slice_kl_upper_bound(
    key: PRNGKeyArray,
    mean: Float[Any, "N h w"],
    log_variance: Float[Any, "N h w"],
    prior: SlicePrior,
    *,
    samples: int = 1,
) -> Float[Array, " N"]:
    """Estimates the bound on KL(q(w) || p(w)) for each slice.

    The entropy is analytic. Each sample draws w ~ N(m, s²) and, given it, z ~ r(z|w), so the
    estimate and its gradients are unbiased for those of the bound [atanov2019].

    Args:
        key: PRNG key.
        mean: m, float[N, h, w].
        log_variance: log s², float[N, h, w].
        prior: latent-variable model; its parameters get gradients too if differentiated.
        samples: number of draws of (w, z).

    Returns:
        float[N], nats per slice.

    Raises:
        UserError: shapes differ, slices are not of the prior's kernel size, or a variance
            underflows.
    """
    mean = as_floats("mean", mean, ndim=3, axes="[N, h, w]")
    log_variance = as_floats("log_variance", log_variance, ndim=3, axes="[N, h, w]")
    _check_posterior(mean, log_variance)
    check_kernel_size(mean.shape[1:], prior.kernel_size, name="mean")
    posterior = Gaussian(mean, jnp.exp(log_variance))

    def expected(key: PRNGKeyArray) -> Float[Array, " N"]:
        key_of_weights, key_of_latents = jax.random.split(key)
        return negative_elbo(key_of_latents, sample_normal(key_of_weights, posterior), prior)

    draws = over_draws(expected, key, as_integer("samples", samples))
    return jnp.mean(draws, axis=0) - jnp.sum(normal_entropy(log_variance), axis=(1, 2))


def kl_upper_bound(
    key: PRNGKeyArray,
    mean: Float[Any, "O I H W"],
    log_variance: Float[Any, "O I H W"],
    prior: SlicePrior,
    *,
    samples: int = 1,
    subset: int | None = None,
    layout: Layout = "OIHW",
) -> Float[Array, ""]:
    """Estimates the bound on KL(q(w) || p(w)) for a layer, the sum over its slices.

    See `slice_kl_upper_bound`; every slice has its own draws.

    Args:
        key: PRNG key.
        mean: m of the factorised posterior N(m, s²), float[O, C, H, W], or float[H, W, C, O] with
            layout "HWIO", the layout of linen's kernels.
        log_variance: log s², same shape.
        prior: latent-variable model of H x W slices.
        samples: number of draws of (w, z).
        subset: number of slices, drawn at random, whose expectation is computed and scaled to the
            layer; None for all. The estimate stays unbiased, has more variance, and costs less: the
            networks of a prior may cost more than the layer itself. No option of the paper.
        layout: order of the kernel's axes.

    Returns:
        Nats, a scalar, 0 for a layer without slices.

    Raises:
        UserError: shapes differ, slices are not of the prior's kernel size, or a variance
            underflows.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from adaptive_nets.layers.kernel_vae import kernel_vae
        >>> prior = kernel_vae(jax.random.key(0), (5, 5), hidden=4)
        >>> mean = jnp.zeros((8, 3, 5, 5))
        >>> kl_upper_bound(jax.random.key(1), mean, mean - 10, prior).shape
        ()
    """
    mean = as_floats("mean", mean, ndim=4, axes=f"four axes, {layout}")
    log_variance = as_floats("log_variance", log_variance, ndim=4, axes=f"four axes, {layout}")
    _check_posterior(mean, log_variance)
    slices = to_slices(mean, layout)
    other = {"OIHW": "HWIO", "HWIO": "OIHW"}[layout]
    check_kernel_size(
        slices.shape[1:],
        prior.kernel_size,
        name="mean",
        hint=f" (axes are {layout}; layout={other!r} reads them as {other})",
    )
    log_variances = to_slices(log_variance, layout)
    count = len(slices)
    if subset is None or as_integer("subset", subset) >= count:
        return jnp.sum(slice_kl_upper_bound(key, slices, log_variances, prior, samples=samples))
    key, key_of_subset = jax.random.split(key)
    chosen = jax.random.permutation(key_of_subset, count)[:subset]
    part = slice_kl_upper_bound(key, slices[chosen], log_variances[chosen], prior, samples=samples)
    # Only the expectation is scaled; the entropy is that of all slices.
    expected = jnp.sum(part) + jnp.sum(normal_entropy(log_variances[chosen]))
    return expected * (count / subset) - jnp.sum(normal_entropy(log_variances))


def network_kl_upper_bound(
    key: PRNGKeyArray,
    means: Mapping[str, Float[Any, "h w C O"]],
    log_variances: Mapping[str, Float[Any, "h w C O"]],
    priors: Iterable[SlicePrior],
    *,
    samples: int = 1,
    subset: int | None = None,
) -> Float[Array, ""]:
    """Sums `kl_upper_bound` over layers, each with the prior of its kernel size.

    Args:
        key: PRNG key; that of a layer depends on its name only.
        means: name of the layer -> m, float[h, w, C, O].
        log_variances: name of the layer -> log s², same names and shapes.
        priors: one prior of every kernel size that occurs.
        samples: number of draws of (w, z).
        subset: number of slices of each layer, as in `kl_upper_bound`.

    Returns:
        Nats, a scalar, 0 without layers.

    Raises:
        UserError: names differ, a layer has no prior, or as `kl_upper_bound`.
    """
    by_size: dict[tuple[int, ...], SlicePrior] = {tuple(p.kernel_size): p for p in priors}
    if means.keys() != log_variances.keys():
        differing = sorted(means.keys() ^ log_variances.keys())
        raise UserError(
            f"means and log_variances differ in {', '.join(differing)}; expected the same layers"
        )
    total = jnp.zeros((), jnp.float32)
    for name, mean in means.items():
        prior = by_size.get(tuple(jnp.shape(mean)[:2]))
        if prior is None:
            sizes = ", ".join("x".join(map(str, size)) for size in sorted(by_size)) or "none"
            raise UserError(
                f"{name} has a kernel of shape {jnp.shape(mean)}; expected one of the priors' "
                f"kernel sizes: {sizes}"
            )
        layer_key = named_key(key, name)
        total += kl_upper_bound(
            layer_key,
            mean,
            log_variances[name],
            prior,
            samples=samples,
            subset=subset,
            layout="HWIO",
        )
    return total


def _check_posterior(mean: Array, log_variance: Array) -> None:
    if mean.shape != log_variance.shape:
        raise UserError(
            f"log_variance has shape {log_variance.shape}; expected {mean.shape}, as mean"
        )
    check_log_variance("log_variance", log_variance)
