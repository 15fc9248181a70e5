"""Score-function (REINFORCE) gradient estimator for sampled halting [figurnov2018].

The objective is E[−log p(y|x, z) + Σ_k τ_k·z_k] over the sampled z. The decisions of an image are
made in order, unit by unit and block by block: step (k, l) decides for every running position of
block k whether it stops after unit l. A step sees states that earlier steps determine, also those
of neighbouring positions in the same block, so E[z_k | z_{<k}] has no closed form. The estimator
instead takes one expectation per step: z = 1 + Σ_{l<L} 1[z > l], and given the earlier decisions
1[z > l] has the expectation a^l·(1 − h^l), where a^l = 1[z ≥ l]. This cost is differentiated
exactly; the costs of later steps and the log-likelihood are the rewards of the step. Only heads
after units that ran enter, so states that a halted position copies have no influence.

The estimator is unbiased if examples do not interact. Batch normalisation in training couples them:
the effect of a decision on other examples through the statistics of the batch is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from adaptive_nets.halting.arguments import as_array, as_arrays, as_units
from adaptive_nets.halting.discrete import units_that_run
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
    logits, num_units = _as_operands("logits", logits, num_units)
    log_q = log_stick_breaking(logits)
    chosen = jnp.take_along_axis(log_q, num_units[..., None] - 1, axis=-1)[..., 0]
    return jnp.sum(chosen, axis=tuple(range(1, chosen.ndim)))


def decision_log_probs(
    logits: Float[Array, "N ... L"], num_units: Int[Array, "N ..."]
) -> Float[Array, "N L1"]:
    """Computes the log-probability of each step's decisions, summed over running positions.

    Their sum over steps is `log_prob_of_units`.

    Args:
        logits: float[N, ..., L], outputs of the halting heads; the last unit's logit is ignored.
        num_units: int[N, ...], z from 1 to L.

    Returns:
        float[N, L − 1], nats.

    Raises:
        UserError: the shape of `num_units` is not that of `logits` without the last axis.
    """
    logits, num_units = _as_operands("logits", logits, num_units)
    ran = units_that_run(num_units, logits.shape[-1])
    goes_on, logits = ran[..., 1:], logits[..., :-1]
    log_probs = jnp.where(goes_on, jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits))
    log_probs = jnp.where(ran[..., :-1], log_probs, 0.0)
    return jnp.sum(log_probs, axis=tuple(range(1, log_probs.ndim - 1)))


def expected_next_units(
    halting_probs: Float[Array, "... L"], num_units: Int[Array, "..."]
) -> Float[Array, "... L1"]:
    """Computes P(z > l) given the decisions before step l, a^l·(1 − h^l), for l = 1 … L − 1.

    The expectation of 1 + the sum over l is E[z].

    Args:
        halting_probs: float[..., L], h^l after units that ran; the last one is ignored.
        num_units: int[...], z from 1 to L.

    Returns:
        float[..., L − 1].

    Raises:
        UserError: the shape of `num_units` is not that of `halting_probs` without the last axis.
    """
    halting_probs, num_units = _as_operands("halting_probs", halting_probs, num_units)
    ran = units_that_run(num_units, halting_probs.shape[-1])[..., :-1]
    return jnp.where(ran, 1.0 - halting_probs[..., :-1], 0.0)


def _as_operands(name: str, values: Any, num_units: Any) -> tuple[Array, Array]:
    values, num_units = as_units(name, values), as_array("num_units", num_units)
    if num_units.shape != values.shape[:-1]:
        raise UserError(
            f"num_units has shape {num_units.shape}; expected {values.shape[:-1]}, the shape of "
            f"{name} without its last axis"
        )
    return values, num_units


def rewards_to_go(
    log_likelihood: Float[Array, "N"], penalties: Sequence[Float[Array, "N"]]
) -> Float[Array, "N K"]:
    """Computes the reward-to-go of each step: A_k = log p(y|x, z) − Σ_{j>k} penalty_j.

    The decisions of a step affect the likelihood and the penalties of later steps; its own penalty
    is an expectation and needs no estimator.

    Args:
        log_likelihood: float[N], nats.
        penalties: K arrays float[N], expected penalty of each step given the earlier ones.

    Returns:
        float[N, K].
    """
    log_likelihood = as_array("log_likelihood", log_likelihood)
    stacked = jnp.stack(as_arrays("penalties", penalties), axis=-1)
    later = jnp.cumsum(stacked[:, ::-1], axis=-1)[:, ::-1] - stacked
    return jnp.broadcast_to(log_likelihood[:, None], later.shape) - later


def reinforce_loss(
    log_likelihood: Float[Array, "N"],
    log_probs: Sequence[Float[Array, "N"]],
    penalties: Sequence[Float[Array, "N"]],
    *,
    baseline: float | Float[Array, "*NK"] = 0.0,
) -> Float[Array, "N"]:
    """Computes a surrogate loss whose gradient is the REINFORCE estimate.

    Its value is −log p(y|x, z) + Σ_k penalty_k at the sampled z; its gradient adds
    −Σ_k (A_k − b)·∇log q(decisions of step k | earlier ones, x). The estimator takes one sample per
    example; its variance grows with the number of latent variables, as the paper shows.

    Args:
        log_likelihood: float[N], nats.
        log_probs: K arrays float[N], log-probability of each step, from `decision_log_probs`.
        penalties: K arrays float[N], expected penalty of each step given the earlier ones.
        baseline: b, a scalar, float[K] or float[N, K]. The estimator is unbiased if b is
            independent of the sample of its example.

    Returns:
        float[N].

    Raises:
        UserError: there are no steps, or the numbers of penalties and steps differ, or the
            baseline has another shape.
    """
    log_likelihood = as_array("log_likelihood", log_likelihood)
    log_probs, penalties = as_arrays("log_probs", log_probs), as_arrays("penalties", penalties)
    if not log_probs or len(log_probs) != len(penalties):
        raise UserError(
            f"log_probs has {len(log_probs)} steps and penalties {len(penalties)}; expected the "
            "same number of steps, at least one"
        )
    rewards = rewards_to_go(log_likelihood, penalties)
    baseline = jnp.asarray(baseline, rewards.dtype)
    if baseline.shape not in ((), rewards.shape[1:], rewards.shape):
        raise UserError(
            f"baseline has shape {baseline.shape}; expected one number, {rewards.shape[1:]} or "
            f"{rewards.shape}"
        )
    advantages = lax.stop_gradient(rewards - jnp.broadcast_to(baseline, rewards.shape))
    scores = jnp.stack(log_probs, axis=-1)
    # Value 0, gradient ∇log q.
    scores = scores - lax.stop_gradient(scores)
    loss = -log_likelihood - jnp.sum(advantages * scores, axis=-1)
    for penalty in penalties:
        loss = loss + penalty
    return loss


class Baseline(NamedTuple):
    """Bias-corrected exponential moving average of rewards: after one update, the first reward.

    The paper's baseline is not known.

    Attributes:
        total: float[K], exponentially decayed sum of mean rewards.
        weight: float[], exponentially decayed count of batches.
    """

    total: Float[Array, "K"]
    weight: Float[Array, ""]

    @property
    def value(self) -> Float[Array, "K"]:
        """Returns the average; zero before the first update."""
        total, weight = jnp.asarray(self.total), jnp.asarray(self.weight)
        return total / jnp.maximum(weight, jnp.finfo(weight.dtype).tiny)

    def for_batch(self, rewards: Float[Array, "N K"]) -> Float[Array, "N K"]:
        """Returns the baseline of each example of a batch.

        It is the average of earlier batches. Before the first update it is the mean reward of the
        other examples of the batch, which is independent of the sample of its example; 0 for a
        single example.

        Args:
            rewards: float[N, K], from `rewards_to_go`.
        """
        rewards = as_array("rewards", rewards)
        count = rewards.shape[0]
        others = (jnp.sum(rewards, axis=0, keepdims=True) - rewards) / max(count - 1, 1)
        value = jnp.broadcast_to(self.value[None], rewards.shape)
        return lax.stop_gradient(jnp.where(self.weight > 0, value, others))


def start_baseline(steps: int) -> Baseline:
    """Returns an empty baseline for K steps."""
    return Baseline(jnp.zeros((steps,)), jnp.zeros(()))


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
    rewards, baseline = as_array("rewards", rewards), jax.tree.map(jnp.asarray, baseline)
    if not 0 <= decay < 1:
        raise UserError(f"decay is {decay!r}; expected a number in [0, 1)")
    mean = lax.stop_gradient(jnp.mean(rewards, axis=0)).astype(baseline.total.dtype)
    return Baseline(
        total=decay * baseline.total + (1 - decay) * mean,
        weight=decay * baseline.weight + (1 - decay),
    )
