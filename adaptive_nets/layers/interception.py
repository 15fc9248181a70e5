"""Calls of convolutions and dense layers of a network, intercepted without a change of the network.

Interceptors see every module of class `nn.Conv` or `nn.Dense`. A path such as ``"layer1_0/conv1"``
names a layer, and with ``"/kernel"`` its parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

Call = Callable[..., Any]
"""Original method of the layer, called with its inputs."""
LayerCall = Callable[[nn.Module, str, Call, Array], Any]
"""(layer, path, original method, inputs) -> outputs."""

LAYERS = (nn.Conv, nn.Dense)
KERNEL, BIAS = "kernel", "bias"


def apply_with(module: nn.Module, call: LayerCall, variables: Any, x: Array, **options: Any) -> Any:
    """Applies a network whose convolutions and dense layers are called by `call`.

    Args:
        module: linen module.
        call: called in place of every layer.
        variables: variables of the network.
        x: inputs.
        **options: further arguments of ``module.apply``.
    """

    def intercept(next_call, arguments, keywords, context):
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, LAYERS):
            return next_call(*arguments, **keywords)
        return call(layer, "/".join(layer.path), next_call, *arguments, **keywords)

    with nn.intercept_methods(intercept):
        return module.apply(variables, x, **options)


def kernel_paths(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns path of the layer -> kernel, of every leaf named ``kernel``."""
    found: dict[str, Any] = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            found |= kernel_paths(child, f"{prefix}{name}/")
        elif name == KERNEL:
            found[prefix.rstrip("/")] = child
    return found


def replace_leaves(
    params: Mapping[str, Any], leaves: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    """Returns parameters with some leaves replaced.

    Args:
        params: tree of parameters.
        leaves: path of a leaf, such as "linear/kernel" -> its new value.
        prefix: path of the tree.
    """
    return {
        name: replace_leaves(child, leaves, f"{prefix}{name}/")
        if isinstance(child, Mapping)
        else leaves.get(f"{prefix}{name}", child)
        for name, child in params.items()
    }
