"""Digests of variables."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from adaptive_nets.models.weights.stored import flatten


def array_digest(variables: Any) -> str:
    """Returns sixteen hexadecimal digits of the names, dtypes, shapes and contents of arrays."""
    sums = hashlib.sha256()
    for name, leaf in sorted(flatten(variables).items()):
        sums.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        sums.update(np.ascontiguousarray(leaf).tobytes())
    return sums.hexdigest()[:16]
