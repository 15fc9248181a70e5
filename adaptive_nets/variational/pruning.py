"""From a variational network to the plain network that is left of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from adaptive_nets.variational.sparsity import THRESHOLD, keep_mask


def prune(params: Mapping[str, Any], *, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Parameters of the plain network: θ where log α < threshold, zero elsewhere; no variances.

    The plain network computes with them exactly what the variational one computes in evaluation.

    Args:
        params: parameter tree with ``kernel`` and ``log_sigma2`` in every variational layer.
        threshold: weights with log α at or above it are removed.

    Returns:
        A tree of the same structure without ``log_sigma2``.
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
