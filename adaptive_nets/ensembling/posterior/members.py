"""Members of an ensemble: the interface of all methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from jaxtyping import PRNGKeyArray

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
