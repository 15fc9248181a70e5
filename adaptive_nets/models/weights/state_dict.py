"""Conversion of PyTorch state dicts to Flax variables: names and layouts.

Modules are named as in torchvision, or as in timm or the authors' code for networks that
torchvision lacks. Names therefore match after dots, slashes and underscores are unified. If a
network has several customary naming schemes, each is tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from adaptive_nets.models.weights.finite import first_not_finite
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
# Flax collection and leaf -> name of the leaf in a state dict.
_LEAVES = {
    "params/kernel": "weight",
    "params/scale": "weight",
    "params/embedding": "weight",
    "params/bias": "bias",
    "batch_stats/mean": "running_mean",
    "batch_stats/var": "running_var",
}
_DIALECTS: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    # DenseNet in torchvision before 0.3.
    ((r"\.(norm|relu|conv)\.([12])\.", r".\1\2."),),
    # VGG in timm, which has convolutions for the first dense layers.
    (
        (r"^pre_logits\.fc1\.", "classifier.0."),
        (r"^pre_logits\.fc2\.", "classifier.3."),
        (r"^head\.fc\.", "classifier.6."),
    ),
    # Classifier names of other collections and of training scripts.
    ((r"^last_linear\.", "fc."),),
    ((r"^last_linear\.", "classifier."),),
    ((r"^classif\.", "last_linear."),),
    ((r"^fc\.", "linear."),),
)


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
    """Whether the names are those of modules' parameters, unlike those of an optimiser."""
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


def _canonical(name: str) -> str:
    return re.sub(r"[./]", "_", name).lower()


def _expected_name(path: str) -> str:
    """Converts a path: "params/layer1_0/conv1/kernel" -> "layer1.0.conv1.weight".

    Dots within a module's name are a guess for messages; matching does not depend on them.
    """
    collection, *modules, leaf = path.split("/")
    dotted = re.sub(r"_(?=\d+(\.|_|$))", ".", ".".join(modules))
    return f"{dotted}.{_LEAVES.get(f'{collection}/{leaf}', leaf)}"


def match_names(paths: list[str], names: list[str], *, source: str = "file") -> dict[str, str]:
    """Matches the variables of a network with the tensors of a state dict.

    Args:
        paths: paths of the variables, such as ``"params/layer1_0/conv1/kernel"``.
        names: names of the tensors, such as ``"layer1.0.conv1.weight"``.
        source: name of the file in messages.

    Returns:
        Path -> name of every match, under the naming scheme with the most matches.

    Raises:
        UserError: two tensors match one variable.
    """
    wanted = {_canonical(_expected_name(path)): path for path in paths}
    best: dict[str, list[str]] = {}
    for rules in _DIALECTS:
        matched: dict[str, list[str]] = {}
        for name in names:
            renamed = name
            for pattern, replacement in rules:
                renamed = re.sub(pattern, replacement, renamed)
            if (key := _canonical(renamed)) in wanted:
                matched.setdefault(wanted[key], []).append(name)
        if len(matched) > len(best):
            best = matched
    for path, found in best.items():
        if len(found) > 1:
            raise UserError(
                f"{source} is ambiguous: {found[0]} and {found[1]} both match "
                f"{_expected_name(path)}; expected one of them"
            )
    return {path: best[path][0] for path in paths if path in best}


def foreign_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the state-dict shape of a kernel; that of a vector is unchanged."""
    if len(shape) < 2:
        return shape
    *spatial, inputs, outputs = shape
    return (outputs, inputs, *spatial)


def convert(
    tensor: np.ndarray,
    shape: tuple[int, ...],
    *,
    flattened: tuple[int, int, int] | None = None,
) -> np.ndarray | None:
    """Converts a tensor of a state dict to Flax's layout, float32.

    Kernels of convolutions go from [O, I/groups, H, W] to [H, W, I/groups, O], those of dense
    layers from [O, I] to [I, O]. 1x1 convolutions and dense layers are interchangeable.

    Args:
        tensor: tensor of the file.
        shape: shape of the result.
        flattened: (H, W, C) of the map whose flattening is the dense layer's input.

    Returns:
        The converted array, or None if the shapes do not agree.
    """
    values = np.asarray(tensor)
    if not (values.dtype.kind in "fiu" or values.dtype.name == "bfloat16"):
        return None
    with np.errstate(over="ignore"):  # An infinity is found by the caller.
        values = values.astype(np.float32)
    if len(shape) < 2:
        squeezed = values.reshape(shape) if values.size == 1 and shape in ((), (1,)) else values
        return squeezed if squeezed.shape == shape else None
    outputs, inputs = shape[-1], shape[-2]
    if len(shape) == 2 and values.ndim > 2 and values.shape[0] == outputs:
        values = values.reshape(outputs, -1)
    if len(shape) > 2 and values.ndim == 2 and all(size == 1 for size in shape[:-2]):
        values = values.reshape(*values.shape, *shape[:-2])
    if values.shape != foreign_shape(shape):
        return None
    if flattened is not None and len(shape) == 2:
        height, width, channels = flattened
        values = values.reshape(outputs, channels, height, width)
        return np.ascontiguousarray(values.transpose(2, 3, 1, 0).reshape(inputs, outputs))
    return np.ascontiguousarray(np.moveaxis(values, (0, 1), (-1, -2)))


def convert_all(
    tensors: Mapping[str, np.ndarray | Unreadable],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    flattened: Mapping[str, tuple[int, int, int]],
    source: str,
) -> dict[str, np.ndarray]:
    """Converts a state dict to Flax variables.

    Args:
        tensors: name -> tensor, see `unwrap`.
        shapes: path -> shape of every variable of the network.
        flattened: kernels behind a flattened map, see `shapes.flattened_inputs`.
        source: name of the file in messages.

    Returns:
        Path -> float32 array.

    Raises:
        UserError: a tensor has another shape, cannot be read, is left over, is missing or is not
            finite; the message names the first as in the file. Entries that are no floats and that
            the network does not need are ignored, since they are no weights.
    """
    matched = match_names(list(shapes), list(tensors), source=source)
    path_of = {name: path for path, name in matched.items()}
    converted: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if name not in path_of:
            if isinstance(tensor, Unreadable) or tensor.dtype.kind in "iub":
                continue
            raise UserError(
                f"{source} does not fit the network: {name} {tensor.shape} is left over; expected "
                "nothing of this name"
            )
        path = path_of[name]
        if isinstance(tensor, Unreadable):
            raise UserError(
                f"{source} does not fit the network: {name} is {tensor.what}; expected "
                f"{tensor.expected}"
            )
        values = convert(tensor, shapes[path], flattened=flattened.get(path))
        if values is None:
            raise UserError(
                f"{source} does not fit the network: {name} is {tensor.dtype} {tensor.shape} in "
                f"the file, expected {foreign_shape(shapes[path])}"
            )
        if (place := first_not_finite(values)) is not None:
            raise UserError(f"{source} is refused: {name} has {place}; expected finite numbers")
        converted[path] = values
    for path in shapes:
        if path not in converted:
            missing = _sibling_name(path, path_of) or _expected_name(path)
            raise UserError(
                f"{source} does not fit the network: {missing} {foreign_shape(shapes[path])} is "
                "missing"
            )
    return converted


def _sibling_name(path: str, path_of: Mapping[str, str]) -> str | None:
    """Infers the file's name of a variable from another variable of the same module."""
    modules = path.split("/")[1:-1]
    for name, other in path_of.items():
        if other.split("/")[1:-1] == modules:
            return f"{name.rpartition('.')[0]}.{_expected_name(path).rpartition('.')[2]}"
    return None
