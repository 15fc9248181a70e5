"""Checksums of arrays, computed on the device and independent of the sharding."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, UInt32

# Odd multipliers are invertible modulo 2^32, so a change of any one word changes the sum. Two of
# them give 64 bits.
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77)


def _words(leaf: Array) -> UInt32[Array, " n"]:
    """Returns the bits of an array as 32-bit words, one or two per element."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[leaf.dtype.itemsize]
    return lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32).ravel()


def checksum(leaf: Array) -> UInt32[Array, " 2"]:
    """Computes two position-weighted sums of the array's 32-bit words modulo 2^32.

    The weight of a word is an odd number that depends on its position, so a changed word always
    changes the sum, and exchanged words do too. Integer sums are exact in any order, so an array
    sharded over eight devices has the same checksum as on one.
    """
    words = _words(leaf)
    position = lax.iota(jnp.uint32, words.size)
    sums = []
    for multiplier in _MULTIPLIERS:
        # Mixing the bits of the position decorrelates the weights of neighbouring words.
        weight = position * jnp.uint32(multiplier)
        weight = (weight ^ (weight >> 15)) * jnp.uint32(multiplier) | jnp.uint32(1)
        sums.append(jnp.sum(words * weight, dtype=jnp.uint32))
    return jnp.stack(sums)


def _checksums(leaves: list[Array]) -> list[Array]:
    return [checksum(leaf) for leaf in leaves]


@functools.cache
def _compiled(mesh: Mesh | None):
    """Returns the compiled checksums; with a mesh, every process gets them."""
    out = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(_checksums, out_shardings=out)


def checksums(leaves: Mapping[str, Array]) -> dict[str, str]:
    """Returns the checksum of every named array, as 16 hexadecimal digits."""
    meshes = {
        leaf.sharding.mesh
        for leaf in leaves.values()
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding)
    }
    mesh = next(iter(meshes)) if len(meshes) == 1 else None
    sums = jax.device_get(_compiled(mesh)(list(leaves.values())))
    return {
        name: "".join(f"{int(word):08x}" for word in np.asarray(pair))
        for name, pair in zip(leaves, sums, strict=True)
    }
