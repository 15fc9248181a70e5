"""Statistics of batch normalisation of sampled members, with one program for all members."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.training.batch_statistics import STATISTICS


def statistics_estimator(
    module: Any, batches: Callable[[], Iterable[Array]]
) -> Callable[[Mapping[str, Any]], Variables]:
    """Builds a function (variables) -> variables with means of the statistics over batches.

    It computes what `training.batch_statistics.reestimate_statistics` does, but takes the variables
    as an argument of the compiled program: many members of one network compile once.

    Args:
        module: network with the `apply` of a linen module.
        batches: returns float[N, H, W, C], inputs of the network; at least one batch.
    """

    @jax.jit
    def updated(variables, value, images):
        zeros = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), variables[STATISTICS])
        _, state = module.apply(
            {**variables, STATISTICS: zeros}, images, train=True, mutable=[STATISTICS]
        )
        return state[STATISTICS]

    def estimate(variables: Mapping[str, Any]) -> Variables:
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
