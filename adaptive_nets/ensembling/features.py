"""Features of a network at any named layer, as a function from pixels to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adaptive_nets.ensembling.linear_probe import LinearHead
from adaptive_nets.ensembling.pieces import in_pieces
from adaptive_nets.ensembling.views import Images, normalised
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights.stored import flatten
from adaptive_nets.runtime.errors import UserError, did_you_mean

POOLED = "pooled"
"""Name of the classifier's input, which is no layer's output in every network."""
_COLLECTION, _CALL, _KERNEL = "intermediates", "__call__", "kernel"


class FeatureFn(Protocol):
    """Features of images: pixels -> vectors."""

    def __call__(self, images: Images) -> Float[Array, "N D"]:
        """Returns features, float32[N, D], of float32 images in [0, 255]."""
        ...


def layer_names(module: Any, variables: Any, image_shape: Sequence[int]) -> tuple[str, ...]:
    """Returns the layers whose output is a vector or a map for each image, sorted.

    Layers within a scan are left out.

    Args:
        module: linen module, called with ``train=False``.
        variables: its variables.
        image_shape: (H, W, C).
    """

    def outputs(variables: Any, images: Array) -> Any:
        _, state = module.apply(
            variables, images, train=False, capture_intermediates=True, mutable=[_COLLECTION]
        )
        return state[_COLLECTION]

    found = jax.eval_shape(outputs, variables, jnp.zeros((2, *image_shape)))
    return tuple(_names(found, ()))


def make_feature_fn(
    module: Any,
    variables: Any,
    normalisation: InputNormalisation,
    *,
    image_shape: Sequence[int],
    layer: str = POOLED,
) -> FeatureFn:
    """Returns the features of a network at one layer; batch normalisation does not train.

    Maps float[N, H, W, C] are averaged over space.

    Args:
        module: linen module, called with ``train=False``.
        variables: its variables.
        normalisation: normalisation of its inputs.
        image_shape: (H, W, C) of the images that name the layers.
        layer: path of a module, such as "layer3_4" or "layer3_4/conv2", for its output; "pooled"
            for the input of the classifier, the last layer with a kernel.

    Raises:
        UserError: the network has no such layer.
    """
    if layer == POOLED:
        path = _classifier(module, variables, image_shape)

        def read(variables: Any, inputs: Array) -> Array:
            return _input_of(module, variables, inputs, path)

    else:
        names = layer_names(module, variables, image_shape)
        if layer not in names:
            raise UserError(
                f"layer is {layer!r}; expected 'pooled' or a layer of the network; "
                f"{did_you_mean(layer, (POOLED, *names))}"
            )
        path = tuple(layer.split("/"))

        def read(variables: Any, inputs: Array) -> Array:
            _, state = module.apply(
                variables, inputs, train=False, mutable=[_COLLECTION],
                capture_intermediates=lambda module, method: (
                    module.path == path and method == _CALL
                ),
            )  # fmt: skip
            found = state[_COLLECTION]
            for name in path:
                found = found[name]
            return found[_CALL][-1]

    @jax.jit
    def apply(variables: Any, images: Array) -> Array:
        def features_of(pixels: Array) -> Array:
            features = read(variables, normalised(pixels, normalisation)).astype(jnp.float32)
            return jnp.mean(features, axis=(1, 2)) if features.ndim == 4 else features

        return in_pieces(features_of, images)

    variables = jax.device_put(variables)
    return lambda images: apply(variables, images)


def linear_head(module: Any, variables: Any, *, image_shape: Sequence[int]) -> LinearHead:
    """Returns the classifier of a network, which takes the features "pooled".

    Raises:
        UserError: the last layer with a kernel is no dense layer.
    """
    path = "/".join(_classifier(module, variables, image_shape))
    params = flatten(variables["params"])
    kernel = np.asarray(params[f"{path}/{_KERNEL}"], np.float64)
    if kernel.ndim != 2:
        raise UserError(
            f"the last layer of the network, {path!r}, has a kernel of shape {kernel.shape}; "
            "expected a dense layer, with a kernel of two axes"
        )
    bias = params.get(f"{path}/bias", np.zeros(kernel.shape[1]))
    return LinearHead(kernel, np.asarray(bias, np.float64))


def _names(tree: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    """Returns the paths of modules whose last output is an array of two or four axes."""
    found = []
    for name, child in tree.items():
        if isinstance(child, Mapping):
            found += _names(child, (*path, name))
        elif name == _CALL and path:
            ndim = getattr(child[-1], "ndim", 0)
            found += ["/".join(path)] if ndim in (2, 4) else []
    return found


def _classifier(module: Any, variables: Any, image_shape: Sequence[int]) -> tuple[str, ...]:
    """Returns the path of the module with a kernel that is called last."""
    kernels = {
        name.removesuffix(f"/{_KERNEL}")
        for name in flatten(jax.tree.map(lambda _: 0, variables["params"]))
        if name.endswith(f"/{_KERNEL}")
    }
    called: list[tuple[str, ...]] = []

    def note(following: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == _CALL and "/".join(context.module.path) in kernels:
            called.append(context.module.path)
        return following(*args, **kwargs)

    def run(variables: Any, images: Array) -> Any:
        with nn.intercept_methods(note):
            return module.apply(variables, images, train=False)

    jax.eval_shape(run, variables, jnp.zeros((2, *image_shape)))
    if not called:
        raise UserError("the network has no layer with a kernel; expected a classifier")
    return called[-1]


def _input_of(module: Any, variables: Any, inputs: Array, path: tuple[str, ...]) -> Array:
    """Computes the input of the last call of a module."""
    found: list[Array] = []

    def keep(following: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == _CALL and context.module.path == path:
            found.append(args[0])
        return following(*args, **kwargs)

    with nn.intercept_methods(keep):
        module.apply(variables, inputs, train=False)
    return found[-1]
