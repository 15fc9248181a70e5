"""What a model returns."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float


def logits_of(output: Any) -> Float[Array, "N K"]:
    """Logits of a model's output: the output itself, or its ``logits`` where there is more."""
    return getattr(output, "logits", output)
