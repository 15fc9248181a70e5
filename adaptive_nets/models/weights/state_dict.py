"""Conversion of PyTorch state dicts to Flax variables: names and layouts.

Modules are named as in torchvision, or as in timm or the authors' code for networks that
torchvision lacks. Names therefore match after dots, slashes and underscores are unified. If a
network has several customary naming schemes, each is tried.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from adaptive_nets.models.weights.finite import first_not_finite
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError

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
        tensors: name -> tensor, see `wrappers.unwrap`.
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
