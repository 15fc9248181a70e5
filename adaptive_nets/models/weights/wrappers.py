"""State dicts in files of training scripts: where they are, and wrappers in their names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError

# Keys under which training scripts store the state dict, in order of preference: plain weights come
# before their moving averages.
_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "params",
    "weights", "backbone", "state_dict_ema", "model_ema", "model_ema_state_dict", "ema_state_dict",
    "ema", "params_ema",
)  # fmt: skip
# Attributes under which wrappers hold the network that they wrap: DataParallel and its kind,
# torch.compile, FSDP, activation checkpointing, DeepSpeed and Fabric, and those of Lightning and
# training scripts.
_WRAPPERS = frozenset({
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
    "_original_module", "model", "net", "network", "ema_model", "averaged_model",
})  # fmt: skip
# Scalars beside the weights: of batch normalisation, moving averages and optimisers.
_COUNTERS = frozenset({
    "num_batches_tracked", "n_averaged", "num_updates", "updates", "step", "steps", "global_step",
    "epoch", "epochs", "iteration", "iterations", "decay", "ema_decay", "initted", "_initted",
})  # fmt: skip


def find_state_dict(tree: Any, *, source: str) -> dict[str, np.ndarray | Unreadable]:
    """Finds the state dict in a file's contents.

    Args:
        tree: nested mappings with arrays; may also hold optimiser state, numbers, strings and
            `Unreadable` entries.
        source: name of the file in messages.

    Returns:
        Name -> array, or `Unreadable`, in the file's order, without counters.

    Raises:
        UserError: the file holds no state dict, or several.
    """
    found = _state_dict_in(tree, source)
    if not found:
        raise UserError(
            f"{source} has no tensors by name{_objects_in(tree)}; expected a state dict, or one "
            f"under the key {_KEYS[0]!r}"
        )
    return {name: leaf for name, leaf in found.items() if not _is_counter(name, leaf)}


def unwrap(
    tensors: Mapping[str, np.ndarray | Unreadable], paths: Iterable[str] = (), *, source: str
) -> dict[str, np.ndarray | Unreadable]:
    """Removes the names of wrappers from names, at any position and any number.

    Args:
        tensors: such as ``{"module.features._orig_mod.0.weight": array}``.
        paths: paths of the network's variables; a wrapper's name that is also that of one of its
            modules is not removed.
        source: name of the file in messages.

    Returns:
        Such as ``{"features.0.weight": array}``, in the same order.

    Raises:
        UserError: two names differ in their wrappers only.
    """
    wrappers = _WRAPPERS.difference(*(path.split("/") for path in paths))
    unwrapped: dict[str, str] = {}
    for name in tensors:
        *modules, leaf = name.split(".")
        short = ".".join([*(part for part in modules if part not in wrappers), leaf])
        if (other := unwrapped.setdefault(short, name)) != name:
            raise UserError(
                f"{source} is ambiguous: {other} and {name} are both {short} without their "
                "wrappers; expected one of them"
            )
    return {short: tensors[name] for short, name in unwrapped.items()}


def _is_counter(name: str, leaf: np.ndarray | Unreadable) -> bool:
    last = name.rpartition(".")[2]
    if isinstance(leaf, Unreadable):
        return last in _COUNTERS
    if last == "num_batches_tracked":
        return True
    # A parameter of one element is a float of another name.
    return leaf.size == 1 and leaf.ndim <= 1 and (last in _COUNTERS or leaf.dtype.kind in "iub")


def _state_dict_in(tree: Any, source: str) -> dict[str, np.ndarray | Unreadable]:
    if not isinstance(tree, Mapping):
        return {}
    for key in _KEYS:
        if isinstance(tree.get(key), Mapping) and (found := _state_dict_in(tree[key], source)):
            return found
    leaves = {
        str(name): leaf for name, leaf in tree.items() if isinstance(leaf, (np.ndarray, Unreadable))
    }
    # Arrays stand directly in a state dict; a name with a dot is that of a module's parameter.
    if any(isinstance(leaf, np.ndarray) for leaf in leaves.values()):
        return leaves
    if any("." in name for name in leaves):
        return leaves
    inner = {
        str(key): found
        for key, child in tree.items()
        if isinstance(child, Mapping) and (found := _state_dict_in(child, source))
    }
    named = {key: found for key, found in inner.items() if _has_modules(found)}
    if len(named) > 1:
        keys = ", ".join(map(repr, named))
        raise UserError(
            f"{source} holds several state dicts, under {keys}; expected one, or one under the key "
            f"{_KEYS[0]!r}"
        )
    return next(iter(named.values()), {})


def _has_modules(found: Mapping[str, Any]) -> bool:
    """Returns True for names of parameters of modules, False for those of an optimiser."""
    return any("." in name for name in found)


def _objects_in(tree: Any) -> str:
    """Describes the objects in place of which a state dict was expected, for messages."""
    if isinstance(tree, Unreadable):
        return f", but {tree.what}"
    if isinstance(tree, Mapping):
        for key in (*_KEYS, *tree):
            if isinstance(leaf := tree.get(key), Unreadable):
                return f", and {str(key)!r} is {leaf.what}"
    return ""
