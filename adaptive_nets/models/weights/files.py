"""Trained networks from files of several formats, detected by content.

Files written by `save_network` hold the name of the network and its input normalisation. PyTorch
files (``torch.save``) and safetensors of other tools hold only a state dict: the caller names the
network, the file's classifier determines the number of classes, and the registry provides the
normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.models.normalisation import Normalisation
from adaptive_nets.models.registry import create_model, model_entry
from adaptive_nets.models.shapes import abstract_variables, flatten_paths, flattened_inputs
from adaptive_nets.models.weights.header import FORMAT
from adaptive_nets.models.weights.safetensors_files import read_metadata, read_safetensors
from adaptive_nets.models.weights.state_dict import convert_all, match_names
from adaptive_nets.models.weights.stored import StoredNetwork, unflatten
from adaptive_nets.models.weights.torch_pickle import read_torch
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.models.weights.wrappers import find_state_dict, unwrap
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import open_file

# Number of classes that marks the shapes that depend on it: a prime that no layer size equals.
_MARKER = 7919


def default_normalisation(model: str) -> Normalisation:
    """Returns the normalisation that state dicts of a network usually expect."""
    return model_entry(model).normalisation


def resolve_normalisation(
    model: str, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalisation:
    """Returns the given normalisation, or the model's default if none is given.

    Raises:
        UserError: only one of mean and std is given, their length is not the number of channels, or
            a deviation is not positive.
    """
    default = default_normalisation(model)
    if mean is None and std is None:
        return default
    if mean is None or std is None:
        raise UserError("only one of --mean and --std is given; expected both or neither")
    channels = len(default.mean)
    for flag, values in (("--mean", mean), ("--std", std)):
        if len(values) != channels:
            raise UserError(
                f"{flag} has {len(values)} values; expected {channels}, the channels of {model}"
            )
    if not all(value > 0 for value in std):
        raise UserError(f"--std is {' '.join(map(str, std))}; expected positive numbers")
    return Normalisation(tuple(mean), tuple(std), "given by --mean and --std")


def is_native_format(path: str | Path) -> bool:
    """Returns whether a file was written by `save_network`."""
    path = Path(path)
    try:
        return FORMAT in read_metadata(path)
    except (OSError, ValueError):
        return False


def _is_torch(path: Path) -> bool:
    with open_file(path) as file:
        start = file.read(9)
    # A zip archive or a pickle. The header of a safetensors file starts at its ninth byte.
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[8:] != b"{")


def read_state_dict(path: str | Path) -> dict[str, np.ndarray | Unreadable]:
    """Reads the named tensors of another tool's file, without counters.

    Raises:
        UserError: the file is absent, damaged, refused, or without tensors.
    """
    path = Path(path)
    try:
        tree = read_torch(path) if _is_torch(path) else read_safetensors(path)[1]
    except FileNotFoundError as error:
        raise UserError(
            f"weights file {path} does not exist; expected a PyTorch or safetensors file"
        ) from error
    except OSError as error:
        raise UserError(f"weights file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"weights file {path} cannot be read as safetensors: {error}") from error
    return find_state_dict(tree, source=f"weights file {path}")


def _overrides_for(model: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns the overrides that give the network the structure of a state dict.

    Auxiliary heads exist if the file has them. Units are not scanned, since a scan stacks their
    variables.
    """
    choices = {"auxiliary_heads": any("aux" in name.lower() for name in names), "scan_units": False}
    known = model_entry(model).overrides
    return {name: value for name, value in choices.items() if name in known}


def load_foreign(path: str | Path, model: str, *, normalisation: Normalisation) -> StoredNetwork:
    """Loads a state dict of another tool as a registered network.

    Args:
        path: PyTorch or safetensors file.
        model: registered name of the network.
        normalisation: normalisation of the inputs, which state dicts do not hold.

    Raises:
        UserError: the file cannot be read or does not fit the network.
    """
    path = Path(path)
    entry = model_entry(model)
    wrapped = read_state_dict(path)
    source = f"weights file {path}"
    overrides = _overrides_for(entry.name, list(wrapped))
    network = create_model(entry.name, num_classes=_MARKER, **overrides)
    expected = abstract_variables(network, entry.input_shape)
    flattened = flattened_inputs(network, expected, entry.input_shape)
    shapes = {name: tuple(leaf.shape) for name, leaf in flatten_paths(expected).items()}
    tensors = unwrap(wrapped, shapes, source=source)
    matched = match_names(list(shapes), list(tensors), source=source)
    num_classes = _number_of_classes(shapes, matched, tensors) or entry.num_classes
    shapes = {
        name: tuple(num_classes if size == _MARKER else size for size in shape)
        for name, shape in shapes.items()
    }
    variables = convert_all(tensors, shapes, flattened=flattened, source=source)
    kernels = [leaf.size for name, leaf in variables.items() if name.endswith("/kernel")]
    return StoredNetwork(
        model=entry.name,
        num_classes=num_classes,
        variables=unflatten(variables),
        normalisation=normalisation.to_input_normalisation(),
        stored_weights=sum(kernels),
        note={"overrides": overrides, "normalisation": normalisation.origin},
    )


def _number_of_classes(shapes: dict, matched: dict, tensors: dict) -> int:
    """Returns the number of outputs of the main or else an auxiliary classifier; 0 without one."""
    ends = [name for name, shape in shapes.items() if shape and shape[-1] == _MARKER]
    for name in sorted(ends, key=lambda name: "aux" in name.lower()):
        tensor = tensors[matched[name]] if name in matched else None
        if isinstance(tensor, np.ndarray) and tensor.ndim:
            return tensor.shape[0]
    return 0
