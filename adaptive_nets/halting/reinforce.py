"""Score-function (REINFORCE) gradient estimator for sampled halting [figurnov2018]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from adaptive_nets.halting.stopping import log_stick_breaking
from adaptive_nets.runtime.errors import UserError


def log_prob_of_units(
    logits: Float[Array, "N ... L"], num_units: Int[Array, "N ..."]
) -> Float[Array, "N"]:
    """Computes log q(z) of sampled stopping units, summed over the latent variables of an example.

    Args:
        logits: float[N, ..., L], outputs of the halting heads; the last unit's logit is ignored.
        num_units: int[N, ...], z from 1 to L.

    Returns:
        float[N], nats.

    Raises:
        UserError: the shape of `num_units` is not that of `logits` without the last axis.
    """
    if num_units.shape != logits.shape[:-1]:
        raise UserError(
            f"num_units has shape {num_units.shape}; expected {logits.shape[:-1]}, the shape of "
            "logits without its last axis"
        )
    log_q = log_stick_breaking(logits)
    chosen = jnp.take_along_axis(log_q, num_units[..., None] - 1, axis=-1)[..., 0]
    return jnp.sum(chosen, axis=tuple(range(1, chosen.ndim)))


def rewards_to_go(
    log_likelihood: Float[Array, "N"], penalties: Sequence[Float[Array, "N"]]
) -> Float[Array, "N K"]:
    """Computes the reward-to-go of each block: A_k = log p(y|x, z) − Σ_{j>k} penalty_j.

    The decision of block k affects the likelihood and the penalties of later blocks; its own
    penalty is an expectation and needs no estimator.

    Args:
        log_likelihood: float[N], nats.
        penalties: K arrays float[N], τ_k·E[z_k | z_{<k}], from `computation_penalty` of one block.

    Returns:
        float[N, K].
    """
    rewards = [log_likelihood]
    for penalty in reversed(penalties[1:]):
        rewards.append(rewards[-1] - penalty)
    return jnp.stack(rewards[::-1], axis=-1)


def reinforce_loss(
    log_likelihood: Float[Array, "N"],
    log_probs: Sequence[Float[Array, "N"]],
    penalties: Sequence[Float[Array, "N"]],
    *,
    baseline: float | Float[Array, "*K"] = 0.0,
) -> Float[Array, "N"]:
    """Computes a surrogate loss whose gradient is the REINFORCE estimate.

    Its value is −log p(y|x, z) + Σ_k penalty_k at the sampled z; its gradient adds
    −Σ_k (A_k − b)·∇log q(z_k | z_{<k}, x). The estimator takes one sample per example; its variance
    grows with the number of latent variables, as the paper shows.

    Args:
        log_likelihood: float[N], nats.
        log_probs: K arrays float[N], from `log_prob_of_units`.
        penalties: K arrays float[N], one per block.
        baseline: b, a scalar or float[K]. The estimator is unbiased if b is independent of the
            sample.

    Returns:
        float[N].

    Raises:
        UserError: there are no blocks, or the numbers of penalties and blocks differ, or the
            baseline has another shape.
    """
    if not log_probs or len(log_probs) != len(penalties):
        raise UserError(
            f"log_probs has {len(log_probs)} blocks and penalties {len(penalties)}; expected the "
            "same number of blocks, at least one"
        )
    rewards = rewards_to_go(log_likelihood, penalties)
    baseline = jnp.asarray(baseline, rewards.dtype)
    if baseline.ndim > 1 or (baseline.ndim == 1 and baseline.shape != rewards.shape[1:]):
        raise UserError(
            f"baseline has shape {baseline.shape}; expected one number or {rewards.shape[1:]}"
        )
    advantages = lax.stop_gradient(rewards - jnp.broadcast_to(baseline, rewards.shape))
    scores = jnp.stack(list(log_probs), axis=-1)
    # Value 0, gradient ∇log q.
    scores = scores - lax.stop_gradient(scores)
    loss = -log_likelihood - jnp.sum(advantages * scores, axis=-1)
    for penalty in penalties:
        loss = loss + penalty
    return loss


class Baseline(NamedTuple):
    """Bias-corrected exponential moving average of rewards.

    Attributes:
        total: float[K], exponentially decayed sum of mean rewards.
        weight: float[], exponentially decayed count of batches.
    """

    total: Float[Array, "K"]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, "K"]:
        """Returns the average; zero before the first update."""
        return self.total / jnp.maximum(self.weight, jnp.finfo(self.weight.dtype).tiny)


def start_baseline(blocks: int) -> Baseline:
    """Returns an empty baseline for K blocks."""
    return Baseline(jnp.zeros((blocks,)), jnp.zeros(()))


def update_baseline(
    baseline: Baseline, rewards: Float[Array, "N K"], *, decay: float = 0.99
) -> Baseline:
    """Adds the mean rewards of a batch to the average.

    Use the result for later batches only: a baseline that depends on the sample biases the
    gradient.

    Args:
        baseline: average before the batch.
        rewards: float[N, K], from `rewards_to_go`.
        decay: decay rate in [0, 1).

    Returns:
        The updated average.

    Raises:
        UserError: `decay` is outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise UserError(f"decay is {decay!r}; expected a number in [0, 1)")
    mean = lax.stop_gradient(jnp.mean(rewards, axis=0)).astype(baseline.total.dtype)
    return Baseline(
        total=decay * baseline.total + (1 - decay) * mean,
        weight=decay * baseline.weight + (1 - decay),
    )
