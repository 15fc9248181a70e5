"""Path names, keys by name and parameter tables of pytrees."""

from __future__ import annotations

import zlib
from typing import Any

import jax
from jaxtyping import PRNGKeyArray
from rich.table import Table


def path_name(path: tuple[Any, ...]) -> str:
    """Formats a tree path as 'params/fc1/kernel', from keys, attribute names and indices."""
    return "/".join(
        str(next(getattr(part, name) for name in ("key", "name", "idx") if hasattr(part, name)))
        for part in path
    )


def named_key(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """Returns the key of a named part, such as a layer, whatever other parts there are.

    Args:
        key: PRNG key of the whole.
        name: name of the part.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def parameter_table(params: Any, *, title: str) -> Table:
    """Returns a table of every parameter: name, shape, elements, dtype, sharded or replicated."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for column in ("parameter", "shape", "elements", "dtype", "devices"):
        table.add_column(column, justify="right" if column == "elements" else "left")
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        total += leaf.size
        spec = getattr(getattr(leaf, "sharding", None), "spec", None)
        sharded = spec is not None and any(axis is not None for axis in spec)
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        where = "sharded" if sharded else "replicated"
        table.add_row(path_name(path), shape, f"{leaf.size:,}", str(leaf.dtype), where)
    table.add_row("total", "", f"{total:,}", "", "", style="bold")
    return table
