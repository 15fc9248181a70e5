"""From a JAX key to the generator that draws on the host."""

from __future__ import annotations

import jax
import numpy as np
from jax.core import Tracer

from adaptive_nets.runtime.errors import UserError

# One stream per purpose, so that a key used twice does not tie a mask to its neighbours.
PURPOSES = ("mask", "ties")


def host_generator(key: jax.Array, purpose: str) -> np.random.Generator:
    """NumPy generator that depends on the key and the purpose alone.

    Masks and nearest-kept maps are made once, on the host, when a network is built.

    Args:
        key: one PRNG key, as `jax.random.key` or `jax.random.PRNGKey` gives it.
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
