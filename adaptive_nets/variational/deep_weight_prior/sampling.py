"""Slices drawn from a prior, and initialisation of convolutions with them.

Initial kernels of [atanov2019]: from the prior (`prior_initializer`), from permuted source slices
(`slices_initializer`), from any other initialiser such as Xavier's, or from pretrained weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import named_key, path_name
from adaptive_nets.variational.deep_weight_prior.arguments import (
    as_floats,
    check_kernel_size,
)
from adaptive_nets.variational.deep_weight_prior.densities import sample_normal
from adaptive_nets.variational.deep_weight_prior.elbo import SlicePrior
from adaptive_nets.variational.deep_weight_prior.slices import convolution_kernels, from_slices

Draw = Literal["mean", "sample"]
"""Mean of the decoder at z ~ N(0, I), smooth, or a sample of the whole model, with its noise."""

KernelInitializer = Callable[..., Float[Array, "h w C O"]]
"""(key, shape, dtype) -> kernel, as the initialisers of linen."""


def sample_slices(
    key: PRNGKeyArray, prior: SlicePrior, count: int, *, draw: Draw = "sample"
) -> Float[Array, "N h w"]:
    """Samples slices from a prior, z ~ N(0, I) and then p(w|z).

    Args:
        key: PRNG key.
        prior: latent-variable model.
        count: number of slices, N.
        draw: "sample" for w ~ p(w|z), "mean" for the mean of p(w|z).

    Returns:
        float[N, h, w].

    Raises:
        UserError: the count is negative or the draw unknown.
    """
    count = as_integer("count", count, at_least=0)
    if draw not in ("mean", "sample"):
        raise UserError(f"draw is {draw!r}; expected 'mean' or 'sample'")
    if not count:
        return jnp.zeros((0, *prior.kernel_size))
    key_of_latents, key_of_weights = jax.random.split(key)
    decoded = prior.decode(jax.random.normal(key_of_latents, (count, prior.latent_size)))
    return decoded.mean if draw == "mean" else sample_normal(key_of_weights, decoded)


def initial_kernel(
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    prior: SlicePrior,
    *,
    dtype: Any = jnp.float32,
    draw: Draw = "mean",
) -> Float[Array, "h w C O"]:
    """Samples an initial kernel of a convolution, each slice independently.

    Args:
        key: PRNG key.
        shape: (h, w, C, O); C is the number of input channels per group.
        prior: latent-variable model of h x w slices.
        dtype: dtype of the kernel.
        draw: "mean", the initialisation of [atanov2019], or "sample".

    Raises:
        UserError: the shape is no kernel of the prior's size.
    """
    check_shape(shape, prior.kernel_size)
    slices = sample_slices(key, prior, shape[2] * shape[3], draw=draw)
    return from_slices(slices, tuple(shape)).astype(dtype)


def prior_initializer(prior: SlicePrior, *, draw: Draw = "mean") -> KernelInitializer:
    """Returns `initial_kernel` of a prior as an initialiser of linen's convolutions."""

    def init(key: PRNGKeyArray, shape: Any, dtype: Any = jnp.float32) -> Float[Array, "h w C O"]:
        return initial_kernel(key, tuple(shape), prior, dtype=dtype, draw=draw)

    return init


def slices_initializer(slices: Float[Any, "N h w"]) -> KernelInitializer:
    """Returns an initialiser that draws source slices without replacement [atanov2019].

    Args:
        slices: source slices, float[N, h, w].

    Raises:
        UserError: the initialiser is called for a kernel of another size, or of more slices.
    """
    slices = as_floats("slices", slices, ndim=3, axes="[N, h, w]")
    size = (slices.shape[1], slices.shape[2])

    def init(key: PRNGKeyArray, shape: Any, dtype: Any = jnp.float32) -> Float[Array, "h w C O"]:
        check_shape(tuple(shape), size)
        needed = shape[2] * shape[3]
        if needed > len(slices):
            raise UserError(
                f"{len(slices):,} source slices are too few for a kernel of shape {tuple(shape)}; "
                f"expected at least {needed:,}"
            )
        chosen = jax.random.permutation(key, len(slices))[:needed]
        return from_slices(slices[chosen], tuple(shape)).astype(dtype)

    return init


def init_convolutions(
    key: PRNGKeyArray,
    params: Any,
    initializers: Mapping[tuple[int, int], KernelInitializer],
    *,
    layers: str = "*",
) -> Any:
    """Initialises the kernels of all convolutions whose size has an initialiser.

    Other kernels, biases and statistics are returned as they are.

    Args:
        key: PRNG key; that of a layer depends on its path only.
        params: linen parameter tree of any network.
        initializers: kernel size (h, w) -> initialiser.
        layers: pattern of the paths of layers, such as "conv1".

    Returns:
        The tree with new kernels, of the dtypes of the old ones.

    Raises:
        UserError: no kernel of the tree matches; the message has the sizes found.

    Example:
        >>> import jax
        >>> from adaptive_nets import create_model
        >>> from adaptive_nets.layers.kernel_vae import kernel_vae
        >>> lenet = create_model("lenet5_caffe")
        >>> params = lenet.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))["params"]
        >>> prior = kernel_vae(jax.random.key(1), (5, 5))
        >>> initializers = {(5, 5): prior_initializer(prior)}
        >>> params = init_convolutions(jax.random.key(2), params, initializers)
    """
    kernels = dict(convolution_kernels(params, layers=layers))
    new = {
        layer: initializers[size](named_key(key, layer), kernel.shape, kernel.dtype)
        for layer, kernel in kernels.items()
        if (size := (kernel.shape[0], kernel.shape[1])) in initializers
    }
    if not new:
        wanted = _size_list(set(initializers))
        found = _size_list({kernel.shape[:2] for kernel in kernels.values()})
        raise UserError(
            f"no convolution of {layers!r} has a kernel of size {wanted}; the sizes of this "
            f"network are {found}"
        )

    def replaced(path: Any, leaf: Any) -> Any:
        layer, _, name = path_name(path).rpartition("/")
        return new.get(layer, leaf) if name == "kernel" else leaf

    return jax.tree_util.tree_map_with_path(replaced, params)


def check_shape(shape: tuple[int, ...], kernel_size: tuple[int, int]) -> None:
    """Checks that a shape is (h, w, C, O) with the given h and w.

    Raises:
        UserError: it is not.
    """
    if len(shape) != 4:
        raise UserError(f"shape is {tuple(shape)}; expected (h, w, C, O) of a convolution")
    check_kernel_size(shape[:2], kernel_size, name="the kernel to initialise")


def _size_list(sizes: set[Any]) -> str:
    return ", ".join("x".join(map(str, size)) for size in sorted(sizes)) or "none"
