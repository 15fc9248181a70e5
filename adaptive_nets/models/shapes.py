"""Shapes and structure of a network, from tracing without computation."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def abstract_variables(
    model: nn.Module, input_shape: tuple[int, ...], *, dtype: Any = jnp.float32
) -> dict[str, Any]:
    """Returns the shapes and dtypes of a model's variables.

    Args:
        model: the network.
        input_shape: shape of one input without the batch axis, (H, W, C) for images.
        dtype: dtype of the input; an integer type for models of text.
    """
    example = jax.ShapeDtypeStruct((1, *input_shape), dtype)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), example)


def flatten_paths(variables: Any) -> dict[str, Any]:
    """Returns path -> leaf, with paths such as ``"params/fc1/kernel"``."""
    return {
        "/".join(str(getattr(key, "key", key)) for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }


def flattened_inputs(
    model: nn.Module, variables: Any, input_shape: tuple[int, ...]
) -> dict[str, tuple[int, int, int]]:
    """Finds dense layers whose input is a map [N, H, W, C] flattened to [N, H·W·C].

    The order of their kernels' rows depends on the order of the axes and differs in frameworks with
    channels first.

    Args:
        model: the network.
        variables: variables of the network or their shapes.
        input_shape: (H, W, C).

    Returns:
        Path of the kernel, such as ``"params/fc1/kernel"`` -> (H, W, C).
    """
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    leaves, tree = jax.tree.flatten(variables)
    paths = list(flatten_paths(variables))

    def forward(leaves, x):
        return model.apply(jax.tree.unflatten(tree, leaves), x, train=False)

    jaxpr: Any = jax.make_jaxpr(forward)(leaves, image).jaxpr
    path_of = dict(zip(jaxpr.invars, paths, strict=False))
    made_by = {var: equation for equation in jaxpr.eqns for var in equation.outvars}

    def is_var(atom: Any) -> bool:
        return not hasattr(atom, "val")  # a literal has one

    def source(var: Any) -> Any:
        """Returns the origin of a value and its equation, skipping element-wise functions."""
        while (equation := made_by.get(var)) is not None:
            same = [v for v in equation.invars if v.aval.shape == var.aval.shape and is_var(v)]
            if not same:
                break
            var = same[0]
        return var, equation

    found = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name != "dot_general" or not all(map(is_var, equation.invars)):
            continue
        kernel, _ = source(equation.invars[1])
        _, before = source(equation.invars[0])
        if kernel not in path_of or before is None or before.primitive.name != "reshape":
            continue
        shape = before.invars[0].aval.shape
        maker = made_by.get(before.invars[0])
        moved = maker is not None and maker.primitive.name == "transpose"
        if len(shape) == 4 and shape[1] * shape[2] > 1 and not moved:
            found[path_of[kernel]] = shape[1:]
    return found
