"""The map by which a perforated layer fills the positions it does not compute."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Bool, Int32

from adaptive_nets.perforation.randomness import host_generator
from adaptive_nets.runtime.errors import UserError
from kernels._common import nearest


def nearest_kept(key: jax.Array, mask: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Flat index ℓ(x, y) of the kept position nearest to each position [figurnov2016].

    Distance is Euclidean and exact. Ties are broken uniformly at random by `key`, here, once: the
    map is fixed with the network. A kept position is its own neighbour.

    Args:
        key: a PRNG key.
        mask: bool[H', W'], True where a position is kept.

    Returns:
        int32[H', W'], row-major indices of kept positions.

    Raises:
        UserError: the mask is not bool[H', W'] or keeps nothing, or `key` is no key.

    Example:
        >>> mask = np.array([[True, False, False]])
        >>> nearest_kept(jax.random.key(0), mask)
        array([[0, 0, 0]], dtype=int32)
    """
    rng = host_generator(key, "ties")
    try:
        return nearest.nearest_kept(mask, rng=rng)
    except ValueError as error:
        raise UserError(str(error)) from None
