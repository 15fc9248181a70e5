"""The only place with tolerances.

A sum of n products in floating point is off by about eps·√n of its size; gradients are sums of such
sums. Loosening one of these is a change of its own.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

_EPSILONS = {"float64": 2.2e-16, "float32": 1.2e-7, "bfloat16": 7.8e-3, "float16": 9.8e-4}


def close(actual, expected, *, terms: int = 1, dtype=jnp.float32, gradient: bool = False) -> None:
    """Asserts closeness relative to the largest expected value.

    Args:
        actual: what was computed.
        expected: the oracle's value.
        terms: length of the sums behind each value.
        dtype: the computation's dtype.
        gradient: whether these are gradients, which are ten times looser.
    """
    expected = np.asarray(expected, np.float64)
    actual = np.asarray(actual, np.float64)
    assert actual.shape == expected.shape
    scale = max(np.max(np.abs(expected), initial=0.0), 1e-30)
    allowed = 4 * _EPSILONS[jnp.dtype(dtype).name] * np.sqrt(terms) * (10 if gradient else 1)
    assert np.max(np.abs(actual - expected), initial=0.0) <= allowed * scale
