"""Classification losses, per example and in float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def cross_entropy(
    logits: Float[Array, "N K"], labels: Int[Array, " N"], *, label_smoothing: float = 0.0
) -> Float[Array, " N"]:
    """Computes the cross-entropy in nats.

    Args:
        logits: float[N, K].
        labels: int[N] in [0, K).
        label_smoothing: share ε of the target spread evenly over all K classes.

    Returns:
        float32[N].
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    if label_smoothing:
        targets = optax.smooth_labels(targets, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def is_top_error(
    logits: Float[Array, "N K"], labels: Int[Array, " N"], *, top: int
) -> Float[Array, " N"]:
    """Returns 1 where the label is not among the `top` largest logits, 0 elsewhere.

    Among equal logits the label ranks last, so that ties never count as correct.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    return (jnp.sum(logits >= own, axis=1) > top).astype(jnp.float32)


def is_error(logits: Float[Array, "N K"], labels: Int[Array, " N"]) -> Float[Array, " N"]:
    """Returns 1 where the largest logit is not that of the label, 0 elsewhere."""
    return (jnp.argmax(logits, axis=-1) != labels).astype(jnp.float32)
