"""Conversion of a variational network to a plain sparse network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from adaptive_nets.variational.sparsity import RATES, THRESHOLD, layer_log_alpha


def prune(params: Mapping[str, Any], *, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Returns parameters of the plain network: θ where log α < threshold, zero elsewhere.

    With them the plain network computes exactly the outputs of the variational one in evaluation.

    Args:
        params: parameter tree with ``kernel`` and ``log_sigma2``, or ``log_alpha`` in the
            multiplicative form, in every variational layer.
        threshold: weights with log α at or above it are removed.

    Returns:
        The tree without the variational leaves.
    """
    pruned: dict[str, Any] = {}
    rates = layer_log_alpha(params)
    for name, child in params.items():
        if isinstance(child, Mapping):
            pruned[name] = prune(child, threshold=threshold)
        elif name == "kernel" and rates is not None:
            pruned[name] = jnp.where(rates < threshold, child, 0.0)
        elif name not in RATES:
            pruned[name] = child
    return pruned


def plain_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns parameters of the plain network with all weights: the means θ, removed or not.

    Args:
        params: parameter tree of a variational network, see `prune`.
    """
    return {
        name: plain_params(child) if isinstance(child, Mapping) else child
        for name, child in params.items()
        if name not in RATES
    }
