"""The prior on a block's depth and what it costs to leave it [figurnov2018].

p(z) ∝ exp(−τ z) on {1 … L}: a truncated geometric distribution, uniform at τ = 0. MAP inference
needs the expectation of log p(z) alone, which is linear in the expected number of units.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_floating, as_units
from adaptive_nets.halting.stopping import expected_units, log_stick_breaking
from adaptive_nets.runtime.errors import UserError

Rate = float | Float[Array, ""]


def truncated_geometric(rate: Rate, units: int, *, dtype=jnp.float32) -> Float[Array, "L"]:
    """Log probabilities of the prior, log p(z = l) = −τ l − log Σ_i e^{−τ i}, in nats.

    Equal to the paper's (e^τ − 1) / (1 − e^{−τL}) · e^{−τl}, and finite at τ = 0 too.

    Args:
        rate: τ, nats per unit; negative ones favour depth.
        units: L ≥ 1.
        dtype: of the result.

    Returns:
        float[L].

    Raises:
        UserError: `units` is not a positive integer.
    """
    if int(units) != units or units < 1:
        raise UserError(f"units is {units!r}; expected a positive integer")
    scores = -jnp.asarray(rate, dtype) * jnp.arange(1, units + 1, dtype=dtype)
    return jax.nn.log_softmax(scores)


def expected_log_prior(halting_probs: Float[Array, "... L"], rate: Rate) -> Float[Array, "..."]:
    """E_q[log p(z)] = −τ·E[z] − log Σ_l e^{−τ l}, analytically, in nats.

    Args:
        halting_probs: float[..., L]. The last of L is taken as 1, whatever is passed.
        rate: τ.

    Returns:
        float[...].

    Raises:
        UserError: `halting_probs` is not float[..., L].
    """
    units = expected_units(halting_probs)
    # log p(1) + τ is the normaliser's part.
    first = truncated_geometric(rate, jnp.shape(halting_probs)[-1], dtype=units.dtype)[0]
    rate = jnp.asarray(rate, units.dtype)
    return first - rate * (units - 1.0)


def kl_from_prior(logits: Float[Array, "... L"], rate: Rate) -> Float[Array, "..."]:
    """KL(q(z) ‖ p(z)) of a block's stopping distribution from the prior, in nats.

    The paper's objective leaves out the entropy of q, whose optimum is a point; this is the whole
    divergence, for comparison with methods that keep it.

    Args:
        logits: float[..., L], heads' outputs; the last is not read.
        rate: τ.

    Returns:
        float[...], not negative.

    Raises:
        UserError: `logits` is not float[..., L].
    """
    log_q = log_stick_breaking(as_units("logits", logits))
    log_p = truncated_geometric(rate, log_q.shape[-1], dtype=log_q.dtype)
    return jnp.sum(jnp.exp(log_q) * (log_q - jnp.broadcast_to(log_p, log_q.shape)), axis=-1)


def computation_penalty(
    costs: Sequence[Float[Array, "N ..."]], rate: Rate | Sequence[Rate] | Float[Array, "K"]
) -> Float[Array, "N"]:
    """Penalty per example, Σ_k τ_k · mean over positions of block k's cost.

    With `ActResult.ponder_cost` it is ACT's, with `expected_units` the probabilistic one; mean over
    positions, so one τ serves blocks of any size. Take the mean over examples for the loss.

    Args:
        costs: one float[N, ...] per block.
        rate: τ, one for all blocks or one for each.

    Returns:
        float[N]; nats where the cost is a number of units and τ the prior's.

    Raises:
        UserError: there is no block, or not as many rates as blocks.
    """
    if not costs:
        raise UserError("costs is empty; expected one array float[N, ...] for each block")
    listed = isinstance(rate, Sequence) or jnp.ndim(rate) == 1
    rates = list(rate) if listed else [rate] * len(costs)  # pyright: ignore[reportArgumentType]
    if len(rates) != len(costs):
        raise UserError(f"rate has {len(rates)} values; expected one, or {len(costs)} for blocks")
    arrays = [as_floating("costs", cost) for cost in costs]
    means = [jnp.mean(cost, axis=tuple(range(1, cost.ndim))) for cost in arrays]
    terms = [jnp.asarray(tau, m.dtype) * m for tau, m in zip(rates, means, strict=True)]
    return sum(terms[1:], start=terms[0])
