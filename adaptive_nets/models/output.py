"""What a model returns."""

from __future__ import annotations

from typing import Any

import flax.struct
from jaxtyping import Array, Float


@flax.struct.dataclass
class ModelOutput:
    """What a network with auxiliary classifiers returns in training; at test it returns logits.

    Attributes:
        logits: float[N, K].
        auxiliary_logits: float[N, K] of every auxiliary classifier, from the input onwards.
    """

    logits: Float[Array, "N K"]
    auxiliary_logits: tuple[Float[Array, "N K"], ...] = ()


def logits_of(output: Any) -> Float[Array, "N K"]:
    """Logits of a model's output: the output itself, or its ``logits`` where there is more."""
    return getattr(output, "logits", output)


def auxiliary_logits_of(output: Any) -> tuple[Float[Array, "N K"], ...]:
    """Logits of the auxiliary classifiers; none where there are none."""
    return getattr(output, "auxiliary_logits", ())
