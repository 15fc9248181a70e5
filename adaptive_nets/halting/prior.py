"""Truncated geometric prior on the depth of a block, and the penalties it implies [figurnov2018].

p(z) ∝ exp(−τ z) on {1 … L}; uniform at τ = 0. MAP inference needs only E[log p(z)], which is linear
in the expected number of units.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_floating, as_units, check_positive_integer
from adaptive_nets.halting.stopping import expected_units, log_stick_breaking
from adaptive_nets.runtime.errors import UserError

Rate = float | Float[Array, ""]


def truncated_geometric(rate: Rate, units: int, *, dtype=jnp.float32) -> Float[Array, "L"]:
    """Computes log p(z = l) = −τ l − log Σ_i e^{−τ i} for l = 1 … L, in nats.

    p equals the paper's (e^τ − 1) / (1 − e^{−τL}) · e^{−τl} and is also finite at τ = 0.

    Args:
        rate: τ, nats per unit; a negative rate favours depth.
        units: L ≥ 1.
        dtype: dtype of the result.

    Returns:
        float[L].

    Raises:
        UserError: `units` is not a positive integer.
    """
    units = check_positive_integer("units", units)
    scores = -jnp.asarray(rate, dtype) * jnp.arange(1, units + 1, dtype=dtype)
    return jax.nn.log_softmax(scores)


def expected_log_prior(halting_probs: Float[Array, "... L"], rate: Rate) -> Float[Array, "..."]:
    """Computes E_q[log p(z)] = −τ·E[z] − log Σ_l e^{−τ l} in closed form, in nats.

    Args:
        halting_probs: float[..., L]. The last of the L probabilities is ignored and taken as 1.
        rate: τ.

    Returns:
        float[...].

    Raises:
        UserError: `halting_probs` is not float[..., L].
    """
    units = expected_units(halting_probs)
    # log p(1) = −τ − log Σ_l e^{−τ l}, so E_q[log p(z)] = log p(1) − τ (E[z] − 1).
    first = truncated_geometric(rate, jnp.shape(halting_probs)[-1], dtype=units.dtype)[0]
    rate = jnp.asarray(rate, units.dtype)
    return first - rate * (units - 1.0)


def kl_from_prior(logits: Float[Array, "... L"], rate: Rate) -> Float[Array, "..."]:
    """Computes KL(q(z) ‖ p(z)) of a block's stopping distribution from the prior, in nats.

    The paper's MAP objective omits the entropy of q. This is the full divergence, for comparison
    with methods that keep the entropy.

    Args:
        logits: float[..., L], outputs of the halting heads; the last one is ignored.
        rate: τ.

    Returns:
        float[...], non-negative.

    Raises:
        UserError: `logits` is not float[..., L].
    """
    log_q = log_stick_breaking(as_units("logits", logits))
    log_p = truncated_geometric(rate, log_q.shape[-1], dtype=log_q.dtype)
    return jnp.sum(jnp.exp(log_q) * (log_q - jnp.broadcast_to(log_p, log_q.shape)), axis=-1)


def computation_penalty(
    costs: Sequence[Float[Array, "N ..."]], rate: Rate | Sequence[Rate] | Float[Array, "K"]
) -> Float[Array, "N"]:
    """Computes the penalty per example, Σ_k τ_k · mean over positions of the cost of block k.

    `ActResult.ponder_cost` gives the penalty of ACT, `expected_units` that of probabilistic ACT.
    The mean over positions makes one τ suitable for maps of any size. Average over examples for the
    loss.

    Args:
        costs: one float[N, ...] per block.
        rate: τ, one for all blocks or one per block.

    Returns:
        float[N], in nats if the costs are numbers of units and τ is the rate of the prior.

    Raises:
        UserError: there is no block, or the numbers of rates and blocks differ.
    """
    if not costs:
        raise UserError("costs is empty; expected one array float[N, ...] per block")
    listed = isinstance(rate, Sequence) or jnp.ndim(rate) == 1
    rates = list(rate) if listed else [rate] * len(costs)  # pyright: ignore[reportArgumentType]
    if len(rates) != len(costs):
        raise UserError(
            f"rate has {len(rates)} values; expected one, or {len(costs)}, one per block"
        )
    arrays = [as_floating(f"costs[{i}]", cost) for i, cost in enumerate(costs)]
    means = [jnp.mean(cost, axis=tuple(range(1, cost.ndim))) for cost in arrays]
    terms = [jnp.asarray(tau, m.dtype) * m for tau, m in zip(rates, means, strict=True)]
    return sum(terms[1:], start=terms[0])
