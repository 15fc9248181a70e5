"""Nearest-kept map, by which a perforated layer fills the positions that it does not compute."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Bool, Int32

from adaptive_nets.perforation.randomness import host_generator
from adaptive_nets.runtime.errors import UserError
from kernels._common import nearest


def nearest_kept(key: jax.Array, mask: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Computes the flat index ℓ(x, y) of the kept position nearest to each one [figurnov2016].

    The Euclidean distance is exact. `key` breaks ties uniformly at random, once per network: the
    map is then fixed. A kept position maps to itself.

    Args:
        key: PRNG key.
        mask: bool[H', W'], True where a position is kept.

    Returns:
        int32[H', W'], row-major indices of kept positions.

    Raises:
        UserError: the mask is not bool[H', W'] or keeps no position, or `key` is not a PRNG key.

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
