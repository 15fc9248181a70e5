"""Members of an ensemble: the interface of all methods, and predictions of one member at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from adaptive_nets.ensembling.views import Predictor
from adaptive_nets.models import logits_of
from adaptive_nets.models.normalisation import InputNormalisation

Variables = dict[str, Any]
"""Variables of one member: {"params": ..., "batch_stats": ...}, NumPy or JAX arrays."""


class Posterior(Protocol):
    """Ensembling method: an iterator of members, the same ones for the same key."""

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Yields members first, first + 1, ...; sampled members never end, trained ones do.

        Args:
            key: PRNG key of all members.
            first: number of the first member; an interrupted run continues from there.
        """
        ...


def member_predictors(
    module: Any, normalisation: InputNormalisation
) -> Callable[[Variables], Predictor]:
    """Builds a function (variables of a member) -> `Predictor`; all members share one program.

    Args:
        module: network or wrapper with the `apply` of a linen module, called with ``train=False``.
        normalisation: normalisation of its inputs, not per image.
    """
    offset, scale = jnp.asarray(normalisation.offset), jnp.asarray(normalisation.scale)

    @jax.jit
    def apply(variables, images):
        inputs = (images / np.float32(normalisation.pixel_scale) - offset[None]) * scale[None]
        logits = logits_of(module.apply(variables, inputs, train=False))
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    def predictor(variables: Variables) -> Predictor:
        placed = jax.device_put(variables)
        return lambda images: apply(placed, images)

    return predictor
