"""Distillation: a network learns the predictions of a trained one besides the labels [hinton2015].

Hinton, Vinyals, Dean, *Distilling the Knowledge in a Neural Network*, arXiv 1503.02531.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from adaptive_nets.models import logits_of
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Objective


def distillation_loss(
    logits: Float[Array, "N K"], teacher: Float[Array, "N K"], *, temperature: float
) -> Float[Array, " N"]:
    """Computes T²·KL(p_T ‖ q_T) in nats, of softmaxes of logits over T [hinton2015, sec. 2].

    The factor T² keeps the size of the gradient as T changes.

    Args:
        logits: float[N, K], of the network that learns; q.
        teacher: float[N, K], of the trained network; p.
        temperature: T, positive.

    Returns:
        float32[N].
    """
    ours, theirs = (
        jax.nn.log_softmax(values.astype(jnp.float32) / temperature) for values in (logits, teacher)
    )
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def distilled(
    objective: Callable[[Timing], Objective],
    teacher: Callable[[Array], Array],
    *,
    share: float,
    temperature: float,
) -> Callable[[Timing], Objective]:
    """Replaces a share of the cross-entropy of an objective by the distillation loss.

    Args:
        objective: timing of the run -> objective whose loss has the mean cross-entropy with labels.
        teacher: images -> logits of the trained network.
        share: share of the distillation loss, in [0, 1].
        temperature: T of the distillation loss.
    """

    def make(timing: Timing) -> Objective:
        inner = objective(timing)

        def outer(output, batch, params, step):
            loss, metrics = inner(output, batch, params, step)
            logits = logits_of(output)
            theirs = lax.stop_gradient(teacher(batch["image"]))
            soft = distillation_loss(logits, theirs, temperature=temperature)
            change = jnp.mean(soft) - jnp.mean(cross_entropy(logits, batch["label"]))
            return loss + share * change, {**metrics, "distillation": Mean.of(soft)}

        return outer

    return make
