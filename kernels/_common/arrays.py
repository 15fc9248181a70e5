"""Conversion of array arguments, and agreement of arrays inside `jax.shard_map`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


def as_array(name: str, value: Any, expected: str = "an array") -> Array:
    """Converts a NumPy, JAX or traced array to a JAX array; dtypes are canonicalised as by JAX.

    Args:
        name: name of the argument, for the message.
        value: the argument.
        expected: description of accepted values, for the message.

    Raises:
        ValueError: the value is not an array of numbers; the message names it.
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic) or hasattr(value, "__jax_array__"):
        try:
            return jnp.asarray(value)
        except TypeError:
            pass
    raise ValueError(f"{name} is {describe(value)}; expected {expected}, a NumPy or JAX array")


def as_arrays(**arguments: Any) -> tuple[Any, ...]:
    """Converts several arguments by `as_array`, in order; shapes and dtypes alone pass.

    `jax.ShapeDtypeStruct` is left as it is, for functions that compute nothing.
    """
    return tuple(
        value if isinstance(value, jax.ShapeDtypeStruct) else as_array(name, value)
        for name, value in arguments.items()
    )


def describe(value: Any) -> str:
    """Describes a value in one line: arrays by dtype and shape, others by type and value."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype}{list(value.shape)}"
    text = " ".join(repr(value).split())
    text = text if len(text) <= 60 else f"{text[:57]}..."
    return f"{type(value).__name__} {text}"


def varying_axes(*values: Any) -> frozenset[Any]:
    """Returns the mesh axes over which any of the arrays varies, inside `jax.shard_map`."""
    axes: frozenset[Any] = frozenset()
    for leaf in jax.tree.leaves(values):
        manual = getattr(jax.typeof(leaf), "manual_axis_type", None)
        axes |= getattr(manual, "varying", frozenset())
    return axes


def vary_over(axes: frozenset[Any], tree: Any) -> Any:
    """Casts arrays to vary over mesh axes; the cotangent of a cast sums over the added axes.

    Loop carries and branches of conditionals must vary alike. Outside `jax.shard_map` nothing is
    done.

    Args:
        axes: axes of the mesh.
        tree: pytree of arrays.
    """

    def cast(leaf: Any) -> Any:
        missing = tuple(sorted(axes - varying_axes(leaf), key=str))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(cast, tree) if axes else tree


def vary_alike(*trees: Any) -> Any:
    """Casts all arrays of the arguments to the union of the axes over which they vary."""
    return vary_over(varying_axes(*trees), trees)
