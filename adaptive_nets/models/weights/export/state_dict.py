"""Flax variables as a state dict of PyTorch, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from adaptive_nets.models.shapes import flattened_inputs
from adaptive_nets.models.weights.export.torch_names import torch_names, torch_shape
from adaptive_nets.models.weights.state_dict import convert_all
from adaptive_nets.models.weights.stored import flatten, unflatten

_COUNTER = "num_batches_tracked"


def to_state_dict(
    model: str, module: nn.Module, variables: Mapping[str, Any], input_shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Converts the variables of a network to a state dict; inverts `state_dict.convert_all`.

    Kernels go from [H, W, I, O] to [O, I, H, W] and from [I, O] to [O, I]; rows of a dense layer
    behind a flattened map from the order (H, W, C) to (C, H, W). Every batch normalisation gets
    the counter ``num_batches_tracked`` that PyTorch expects, 0.

    Args:
        model: registered name of the network.
        module: the network.
        variables: {"params": ..., "batch_stats": ...} of arrays.
        input_shape: (H, W, C).

    Returns:
        Name -> float32 array, or int64[] for a counter, in the order of the variables.

    Raises:
        UserError: PyTorch's collections have no names for the network.
    """
    flat = flatten(variables)
    names = torch_names(model, flat)
    flattened = flattened_inputs(module, variables, input_shape)
    tensors: dict[str, np.ndarray] = {}
    for path, name in names.items():
        values = np.asarray(flat[path], np.float32)
        if values.ndim >= 2:
            if path in flattened:
                height, width, channels = flattened[path]
                values = values.reshape(height, width, channels, -1).transpose(2, 0, 1, 3)
                values = values.reshape(height * width * channels, -1)
            values = np.moveaxis(values, (-1, -2), (0, 1)).reshape(
                torch_shape(name, flat[path].shape)
            )
        tensors[name] = np.ascontiguousarray(values).reshape(values.shape)
        if name.endswith(".running_var"):
            tensors[name.removesuffix("running_var") + _COUNTER] = np.zeros((), np.int64)
    return tensors


def from_state_dict(
    tensors: Mapping[str, np.ndarray],
    module: nn.Module,
    variables: Mapping[str, Any],
    input_shape: tuple[int, ...],
    *,
    source: str,
) -> dict[str, Any]:
    """Converts a state dict back to the variables of a network.

    Args:
        tensors: name -> tensor.
        module: the network.
        variables: variables of the network or their shapes.
        input_shape: (H, W, C).
        source: name of the file in messages.

    Raises:
        UserError: a tensor does not fit the network.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in flatten(variables).items()}
    flattened = flattened_inputs(module, variables, input_shape)
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}
    return unflatten(convert_all(kept, shapes, flattened=flattened, source=source))
