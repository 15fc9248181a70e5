"""Conversion of a variational network to a plain sparse network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from adaptive_nets.variational.sparsity import THRESHOLD, keep_mask


def prune(params: Mapping[str, Any], *, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Returns parameters of the plain network: θ where log α < threshold, zero elsewhere.

    With them the plain network computes exactly the outputs of the variational one in evaluation.

    Args:
        params: parameter tree with ``kernel`` and ``log_sigma2`` in every variational layer.
        threshold: weights with log α at or above it are removed.

    Returns:
        The tree without its ``log_sigma2`` leaves.
    """
    pruned: dict[str, Any] = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            pruned[name] = prune(child, threshold=threshold)
        elif name == "kernel" and "log_sigma2" in params:
            kept = keep_mask(child, params["log_sigma2"], threshold=threshold)
            pruned[name] = jnp.where(kept, child, 0.0)
        elif name != "log_sigma2":
            pruned[name] = child
    return pruned
