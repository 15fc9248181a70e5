"""Metrics as sums and counts, merged over batches and devices, divided once at the end."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@flax.struct.dataclass
class Mean:
    """Mean, stored as a sum and a count.

    Attributes:
        total: float32[], sum of the values.
        count: float32[], number of values, or the sum of their weights.
    """

    total: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def of(cls, values: Float[Array, "..."], weights: Float[Array, "..."] | None = None) -> Mean:
        """Accumulates all entries, weighted if weights are given; weight 0 excludes an entry."""
        values = values.astype(jnp.float32)
        if weights is None:
            return cls(jnp.sum(values), jnp.float32(values.size))
        weights = jnp.broadcast_to(weights.astype(jnp.float32), values.shape)
        # An excluded entry may be NaN.
        return cls(jnp.sum(jnp.where(weights > 0, values * weights, 0.0)), jnp.sum(weights))

    def merge(self, other: Mean) -> Mean:
        """Returns the mean over the entries of both."""
        return Mean(self.total + other.total, self.count + other.count)

    def value(self) -> float:
        """Returns the mean as a Python float; NaN if nothing was counted."""
        total, count = jax.device_get((self.total, self.count))
        return float(total) / float(count) if count else float("nan")


Metrics = Mapping[str, Mean]


def merge(first: Metrics, second: Metrics) -> dict[str, Mean]:
    """Merges two sets of metrics with the same names."""
    return {name: first[name].merge(second[name]) for name in first}


def compute(metrics: Metrics) -> dict[str, float]:
    """Returns the values of all means, in one transfer from the device."""
    on_host = jax.device_get(dict(metrics))
    return {name: mean.value() for name, mean in on_host.items()}
