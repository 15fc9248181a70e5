"""Host-side NumPy generators seeded by JAX PRNG keys."""

from __future__ import annotations

import jax
import numpy as np
from jax.core import Tracer

from adaptive_nets.runtime.errors import UserError

# One stream per purpose, so that a mask and its nearest-kept map may use the same key.
PURPOSES = ("mask", "ties")


def host_generator(key: jax.Array, purpose: str) -> np.random.Generator:
    """Returns a NumPy generator that depends only on the key and the purpose.

    Masks and nearest-kept maps are drawn once, on the host, when a network is built.

    Args:
        key: one PRNG key, from `jax.random.key` or `jax.random.PRNGKey`.
        purpose: "mask" or "ties".

    Raises:
        UserError: `key` is not one concrete PRNG key.
    """
    expected = "expected one PRNG key, such as jax.random.key(0), outside of jit and vmap"
    if isinstance(key, Tracer):
        raise UserError(f"key is a traced value; {expected}")
    try:
        words = np.asarray(jax.random.key_data(key))
    except (TypeError, ValueError):
        raise UserError(f"key is {key!r}; {expected}") from None
    if words.ndim != 1:
        raise UserError(f"key is an array of keys of shape {words.shape[:-1]}; {expected}")
    return np.random.default_rng([PURPOSES.index(purpose), *words.tolist()])
