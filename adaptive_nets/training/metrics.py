"""Metrics as sums and counts, merged across batches and devices and divided once."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@flax.struct.dataclass
class Mean:
    """A mean that is still a sum and a count.

    Attributes:
        total: sum of the values, float32[].
        count: how many there were, float32[].
    """

    total: Float[Array, ""]
    count: Float[Array, ""]

    @classmethod
    def of(cls, values: Float[Array, "..."], weights: Float[Array, "..."] | None = None) -> Mean:
        """Mean over all entries, weighted where weights are given (0 leaves an entry out)."""
        values = values.astype(jnp.float32)
        if weights is None:
            return cls(jnp.sum(values), jnp.float32(values.size))
        weights = jnp.broadcast_to(weights.astype(jnp.float32), values.shape)
        # A masked entry may hold anything, NaN included.
        return cls(jnp.sum(jnp.where(weights > 0, values * weights, 0.0)), jnp.sum(weights))

    def merge(self, other: Mean) -> Mean:
        """Mean over the entries of both."""
        return Mean(self.total + other.total, self.count + other.count)

    def value(self) -> float:
        """The mean as a Python float; NaN when nothing was counted."""
        total, count = jax.device_get((self.total, self.count))
        return float(total) / float(count) if count else float("nan")


Metrics = Mapping[str, Mean]


def merge(first: Metrics, second: Metrics) -> dict[str, Mean]:
    """Merges two sets of metrics with the same names."""
    return {name: first[name].merge(second[name]) for name in first}


def compute(metrics: Metrics) -> dict[str, float]:
    """Divides every mean, in one transfer from the device."""
    on_host = jax.device_get(dict(metrics))
    return {name: mean.value() for name, mean in on_host.items()}
