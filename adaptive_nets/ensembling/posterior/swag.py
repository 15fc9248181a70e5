"""SWAG: a Gaussian fitted to the iterates of SGD at a constant learning rate [maddox2019]."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError

# Smallest variance of a weight, as in the authors' code.
_FLOOR = 1e-30


@flax.struct.dataclass
class SwagMoments:
    """Running moments of the iterates of a training.

    Attributes:
        mean: mean of the iterates, a pytree of parameters.
        square: mean of their squares.
        deviations: iterate minus the running mean, of the last K iterates, oldest first.
        count: number of iterates.
    """

    mean: Any
    square: Any
    deviations: tuple[Any, ...]
    count: int = flax.struct.field(pytree_node=False, default=0)

    @classmethod
    def empty(cls, params: Any) -> Self:
        """Returns the moments of no iterates of a network with these parameters."""
        zeros = jax.tree.map(jnp.zeros_like, params)
        return cls(zeros, zeros, (), 0)

    def add(self, params: Any, *, rank: int = 20) -> SwagMoments:
        """Returns the moments with one more iterate.

        Args:
            params: parameters of the iterate.
            rank: number K of deviations that are kept.
        """
        rank, n = as_integer("rank", rank), self.count

        def running(mean: Array, value: Array) -> Array:
            return (n * mean + value) / (n + 1)

        mean = jax.tree.map(running, self.mean, params)
        square = jax.tree.map(lambda mean, x: running(mean, jnp.square(x)), self.square, params)
        deviation = jax.tree.map(jnp.subtract, params, mean)
        return SwagMoments(mean, square, (*self.deviations, deviation)[-rank:], n + 1)

    def variance(self) -> Any:
        """Returns the variance of each parameter, E[θ²] − E[θ]², at least 1e-30."""
        return jax.tree.map(
            lambda square, mean: jnp.maximum(square - jnp.square(mean), _FLOOR),
            self.square, self.mean,
        )  # fmt: skip


def sample_swag(key: PRNGKeyArray, moments: SwagMoments, *, scale: float = 0.5) -> Any:
    """Samples parameters from the Gaussian of SWAG.

    θ = θ̄ + √scale·(Σ^½ z₁ + D z₂/√(K − 1)) with z₁ of the size of θ and z₂ of size K; the scale
    0.5 gives the covariance ½ (Σ + D Dᵀ/(K − 1)) of [maddox2019, eq. 1].

    Args:
        key: PRNG key.
        moments: moments with K ≥ 2 deviations.
        scale: factor of the covariance; 0 gives the mean of the iterates (SWA).

    Returns:
        Pytree of parameters.

    Raises:
        UserError: there are fewer than two deviations.
    """
    rank = len(moments.deviations)
    if rank < 2:
        raise UserError(f"moments hold {rank} deviations; expected at least 2 iterates")
    of_diagonal, of_deviations = jax.random.split(key)
    low_rank = jax.random.normal(of_deviations, (rank,)) / jnp.sqrt(rank - 1.0)
    leaves, structure = jax.tree.flatten(moments.mean)
    keys = jax.tree.unflatten(structure, list(jax.random.split(of_diagonal, len(leaves))))

    def sampled(mean: Array, variance: Array, key: PRNGKeyArray, *deviations: Array) -> Array:
        noise = jnp.sqrt(variance) * jax.random.normal(key, mean.shape, mean.dtype)
        noise += sum(low_rank[i] * deviation for i, deviation in enumerate(deviations))
        return mean + jnp.sqrt(scale).astype(mean.dtype) * noise

    return jax.tree.map(sampled, moments.mean, moments.variance(), keys, *moments.deviations)


@dataclasses.dataclass(frozen=True)
class SwagPosterior:
    """Networks sampled from the Gaussian of SWAG, an endless ensemble.

    Attributes:
        moments: moments of the iterates.
        others: further collections of the network, such as batch statistics.
        estimate: re-estimates the batch statistics of a sample, see `statistics_estimator`.
        scale: factor of the covariance.
    """

    moments: SwagMoments
    others: Mapping[str, Any]
    estimate: Callable[[Variables], Variables]
    scale: float = 0.5

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Yields samples; sample i has the key ``fold_in(key, i)``."""
        sample = jax.jit(lambda key: sample_swag(key, self.moments, scale=self.scale))
        number = first
        while True:
            params = sample(jax.random.fold_in(key, number))
            yield jax.device_get(self.estimate({**self.others, "params": params}))
            number += 1
