"""Re-estimation of the statistics of batch normalisation, for a network that was changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

STATISTICS = "batch_stats"


def reestimate_statistics(
    model: Any, variables: Any, batches: Iterable[Array | np.ndarray]
) -> dict[str, Any]:
    """Replaces the running statistics by their means over batches of training images.

    Args:
        model: network, an object with the `apply` of a linen module.
        variables: its variables; a network without batch normalisation keeps them.
        batches: float[N, H, W, C], preprocessed as input of the network; at least one.

    Returns:
        Variables with other statistics.

    Raises:
        ValueError: there is no batch.
    """
    return statistics_estimator(model, lambda: batches)(variables)


def statistics_estimator(
    module: Any, batches: Callable[[], Iterable[Array | np.ndarray]]
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Builds a function (variables) -> variables with means of the statistics over batches.

    In training a running statistic becomes m·old + (1 − m)·batch. Passes from 0 give the statistics
    of the batches up to the factor 1 − m of each layer, which a pass from 1 gives. Many sets of
    variables of one network share a program.

    Args:
        module: network with the `apply` of a linen module.
        batches: returns float[N, H, W, C], inputs of the network; at least one batch, else the
            function raises a ValueError.
    """

    @jax.jit
    def updated(variables, value, images):
        zeros = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), variables[STATISTICS])
        _, state = module.apply(
            {**variables, STATISTICS: zeros}, images, train=True, mutable=[STATISTICS]
        )
        return state[STATISTICS]

    def estimate(variables: Mapping[str, Any]) -> dict[str, Any]:
        variables = dict(variables)
        if not jax.tree.leaves(variables.get(STATISTICS, {})):
            return variables
        total, factors, count = None, None, 0
        for images in batches():
            found = updated(variables, 0.0, images)
            if total is None:
                # A running statistic becomes m·old + (1 − m)·batch: the factor 1 − m of each layer.
                ones = updated(variables, 1.0, images)
                factors = jax.tree.map(lambda one, zero: 1 - (one - zero), ones, found)
                total = found
            else:
                total = jax.tree.map(jnp.add, total, found)
            count += 1
        if total is None:
            raise ValueError("there are no batches; expected at least one")
        means = jax.tree.map(lambda sums, factor: sums / (count * factor), total, factors)
        return {**variables, STATISTICS: means}

    return estimate
