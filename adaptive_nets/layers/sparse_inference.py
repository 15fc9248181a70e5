"""Predictions of a pruned network whose dense layers skip removed weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array

from adaptive_nets.layers.interception import BIAS, KERNEL, apply_with, kernel_paths
from adaptive_nets.layers.sparse_product import (
    LARGEST_SHARE,
    SparseKernel,
    sparse_kernel,
    sparse_product,
)


def sparse_layers(params: Any, *, largest_share: float = LARGEST_SHARE) -> dict[str, SparseKernel]:
    """Collects the dense layers of a pruned network that are faster as sparse products.

    Args:
        params: parameters of the plain network, with zeros for removed weights.
        largest_share: largest number of weights of an output over the number of inputs.

    Returns:
        Path of a layer, such as "fc1" -> its kept weights.
    """
    found = {}
    for path, kernel in kernel_paths(params).items():
        array = np.asarray(kernel)
        if array.ndim != 2:
            continue
        collected = sparse_kernel(array)
        if collected.most <= largest_share * array.shape[0]:
            found[path] = collected
    return found


def sparse_apply(
    module: nn.Module, variables: Any, *, largest_share: float = LARGEST_SHARE
) -> Callable[[Array], Any]:
    """Builds a compiled function from inputs to the output of a pruned network in evaluation.

    Dense layers with few weights left skip the others; all other layers run as they are. On an
    accelerator the dense product is the faster one, see `largest_share`.

    Args:
        module: plain network.
        variables: its variables, with zeros for removed weights.
        largest_share: largest number of weights of an output over the number of inputs at which a
            layer is computed as a sparse product; 0 for none, 1 for all.
    """
    layers = sparse_layers(variables["params"], largest_share=largest_share)

    @jax.jit
    def apply(layers: dict[str, SparseKernel], variables: Any, x: Array) -> Any:
        def call(layer: nn.Module, path: str, original: Callable[..., Any], inputs: Array) -> Any:
            if path not in layers:
                return original(inputs)
            rows = inputs.reshape(-1, inputs.shape[-1])
            outputs = sparse_product(rows, layers[path])
            if layer.has_variable("params", BIAS):
                outputs = outputs + layer.get_variable("params", BIAS)[None]
            return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1]).astype(inputs.dtype)

        return apply_with(module, call, variables, x, train=False)

    placed = jax.device_put((layers, _without_kernels(variables, set(layers))))
    return lambda x: apply(*placed, x)


def _without_kernels(variables: Any, paths: set[str]) -> Any:
    """Returns the variables with empty matrices in place of kernels that are not read."""

    def replace(path: Any, leaf: Any) -> Any:
        *parents, name = (str(part.key) for part in path[1:])
        unread = name == KERNEL and "/".join(parents) in paths
        return np.zeros((0, 0), np.float32) if unread else leaf

    return jax.tree_util.tree_map_with_path(replace, variables)
