"""Layers that a network calls, in order, and the shapes they see; nothing is computed."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.models import full_output_method
from adaptive_nets.training.task import STREAMS


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer.

    Attributes:
        name: of the sub-module, parts joined by slashes.
        layer: the module.
        x: shape of its input.
        y: shape of its output.
    """

    name: str
    layer: nn.Module
    x: tuple[int, ...]
    y: tuple[int, ...]


@functools.cache
def _variables(model: nn.Module, input_shape: tuple[int, int, int]) -> Any:
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


@functools.cache
def trace(
    model: nn.Module, input_shape: tuple[int, int, int], *, train: bool = False
) -> tuple[list[Call], Any]:
    """The layers that one image passes, at test or in training, and the output's shapes."""
    calls = []

    def record(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and args and hasattr(output, "shape"):
            name = "/".join(context.module.path)
            calls.append(Call(name, context.module, args[0].shape, output.shape))
        return output

    def forward(variables, x):
        rngs = {stream: jax.random.key(0) for stream in STREAMS}
        with nn.intercept_methods(record):
            mutable = [name for name in variables if name != "params"] if train else False
            output = model.apply(
                variables, x, train=train, rngs=rngs, mutable=mutable, **full_output_method(model)
            )
        return output[0] if train else output

    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return calls, jax.eval_shape(forward, _variables(model, input_shape), image)


def by_type(calls: list[Call], kind: type) -> list[Call]:
    """The calls of one kind of layer."""
    return [call for call in calls if isinstance(call.layer, kind)]


def dropout_rates(calls: list[Call]) -> list[float]:
    """Rates of the binary dropout that is active, in order."""
    return [call.layer.rate for call in by_type(calls, nn.Dropout)]


def parameter_shapes(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, tuple]:
    """Name -> shape of every parameter."""
    leaves = jax.tree_util.tree_leaves_with_path(_variables(model, input_shape)["params"])
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in leaves}
