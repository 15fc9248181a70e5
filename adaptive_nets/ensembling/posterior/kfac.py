"""Kronecker-factored Laplace approximation of convolutions and dense layers [ritter2018].

The Fisher matrix of a layer is A ⊗ G, where A is the second moment of its inputs and G that of the
gradients of its outputs, with labels sampled from the prediction [martens2015]. A convolution is a
dense layer of patches: A is summed over positions and G averaged [grosse2016, sec. 3].

The factors are our own: `kfac-jax` 0.0.8, the newest release, fails at import with JAX 0.11 and
newer (``jax.core.Effects`` was removed), and installs TensorFlow Probability.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.layers.interception import (
    BIAS,
    KERNEL,
    apply_with,
    kernel_paths,
    replace_leaves,
)
from adaptive_nets.models import logits_of
from adaptive_nets.runtime.errors import UserError


@flax.struct.dataclass
class Factors:
    """Kronecker factors of one layer; the last row of A is of the bias, if there is one.

    Attributes:
        inputs: A, float32[I, I], I = kernel taps · input channels (+ 1).
        outputs: G, float32[O, O].
    """

    inputs: Float[Array, "I I"]
    outputs: Float[Array, "O O"]


def layer_patches(layer: nn.Module, x: Array) -> Float[Array, "N T I"]:
    """Returns inputs of a layer as rows that its kernel, as a matrix, multiplies.

    Args:
        layer: bound `nn.Dense`, or `nn.Conv` without groups.
        x: its inputs, float[N, C] or float[N, H, W, C].

    Returns:
        float[N, T, I], T output positions, with a last column of ones if the layer has a bias.

    Raises:
        UserError: the convolution has groups.
    """
    if isinstance(layer, nn.Conv):
        if layer.feature_group_count != 1:
            raise UserError(f"layer {layer.name} has groups; expected a convolution without groups")
        kernel_size: Any = layer.kernel_size
        padding: Any = layer.padding
        strides: Any = layer.strides or 1
        dilation: Any = layer.kernel_dilation or 1
        spatial = len(kernel_size)
        patches = lax.conv_general_dilated_patches(
            x,
            kernel_size,
            (strides,) * spatial if isinstance(strides, int) else strides,
            padding,
            rhs_dilation=(dilation,) * spatial if isinstance(dilation, int) else dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        # Patches are ordered by channel, then tap; kernels by tap, then channel.
        taps = math.prod(kernel_size)
        rows = patches.reshape(len(x), -1, x.shape[-1], taps).swapaxes(2, 3)
        rows = rows.reshape(len(x), -1, taps * x.shape[-1])
    else:
        rows = x.reshape(len(x), -1, x.shape[-1])
    if layer.use_bias:  # pyright: ignore[reportAttributeAccessIssue]
        rows = jnp.concatenate([rows, jnp.ones((*rows.shape[:2], 1), rows.dtype)], axis=-1)
    return rows


def batch_factors(
    key: PRNGKeyArray, module: nn.Module, variables: Mapping[str, Any], images: Array
) -> dict[str, Factors]:
    """Computes the factors of one batch, means over its images.

    A = 1/N Σ_n Σ_t a_nt a_ntᵀ and G = 1/(N T) Σ_n Σ_t g_nt g_ntᵀ, where g is the gradient of
    −log p(y | x) with y sampled from the prediction, for images n and positions t.

    Args:
        key: PRNG key of the labels.
        module: network, applied with ``train=False``.
        variables: its variables.
        images: float[N, H, W, C], inputs of the network.

    Returns:
        Path of each convolution and dense layer -> factors.
    """
    inputs: dict[str, Array] = {}

    def record(layer: nn.Module, path: str, original: Callable[..., Any], x: Array) -> Any:
        inputs[path] = layer_patches(layer, x)
        return original(x)

    def forward(call: Callable[..., Any]) -> Array:
        return logits_of(apply_with(module, call, variables, images, train=False))

    shapes: dict[str, Any] = {}

    def shape_of(layer: nn.Module, path: str, original: Callable[..., Any], x: Array) -> Any:
        del layer
        outputs = original(x)
        shapes[path] = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
        return outputs

    jax.eval_shape(lambda: forward(shape_of))
    logits = lax.stop_gradient(forward(record))
    labels = jax.random.categorical(key, logits)

    def loss(offsets: dict[str, Array]) -> Array:
        def shifted(layer: nn.Module, path: str, original: Callable[..., Any], x: Array) -> Any:
            del layer
            return original(x) + offsets[path]

        log_probs = jax.nn.log_softmax(forward(shifted))
        return -jnp.sum(jnp.take_along_axis(log_probs, labels[:, None], axis=1))

    gradients = jax.grad(loss)({name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()})
    count = len(images)
    found = {}
    for path, gradient in gradients.items():
        a = inputs[path].reshape(-1, inputs[path].shape[-1])
        g = gradient.reshape(-1, gradient.shape[-1])
        found[path] = Factors(a.T @ a / count, g.T @ g / len(g))
    return found


def kronecker_factors(
    key: PRNGKeyArray, module: nn.Module, variables: Mapping[str, Any], batches: Iterable[Array]
) -> dict[str, Factors]:
    """Averages `batch_factors` over batches of equal size.

    Args:
        key: PRNG key of the labels.
        module: network.
        variables: its variables.
        batches: float[N, H, W, C], inputs of the network; at least one batch.

    Raises:
        UserError: there is no batch.
    """
    compute = jax.jit(lambda key, variables, images: batch_factors(key, module, variables, images))
    total: dict[str, Factors] | None = None
    count = 0
    for images in batches:
        found = compute(jax.random.fold_in(key, count), variables, images)
        total = found if total is None else jax.tree.map(jnp.add, total, found)
        count += 1
    if total is None:
        raise UserError("batches are empty; expected at least one to compute Kronecker factors")
    return jax.tree.map(lambda sums: sums / count, total)


def damped_cholesky(factor: Float[Array, "M M"], *, examples: int, precision: float) -> Array:
    """Returns the lower Cholesky factor of √N·F + √τ·I [ritter2018, eq. 8]."""
    damping = math.sqrt(precision) * jnp.eye(len(factor), dtype=factor.dtype)
    return jnp.linalg.cholesky(math.sqrt(examples) * factor + damping)


def sample_matrix(key: PRNGKeyArray, lower_inputs: Array, lower_outputs: Array) -> Array:
    """Samples L_A⁻ᵀ Z L_G⁻¹, of covariance (L_A L_Aᵀ)⁻¹ ⊗ (L_G L_Gᵀ)⁻¹ of its rows in order.

    Args:
        key: PRNG key.
        lower_inputs: L_A, float[I, I].
        lower_outputs: L_G, float[O, O].

    Returns:
        float[I, O].
    """
    noise = jax.random.normal(key, (len(lower_inputs), len(lower_outputs)), lower_inputs.dtype)
    left = solve_triangular(lower_inputs, noise, lower=True, trans="T")
    return solve_triangular(lower_outputs, left.T, lower=True, trans="T").T


@dataclasses.dataclass(frozen=True)
class KfacPosterior:
    """Networks sampled around trained weights, an endless ensemble.

    W = W* + scale·L_A⁻ᵀ Z L_G⁻¹, where L_A and L_G are the Cholesky factors of √N·A + √τ·I and
    √N·G + √τ·I, the posterior precision of N examples and prior precision τ = N·wd
    [ritter2018, sec. 3.2]. Batch normalisation keeps its trained parameters and statistics.

    Attributes:
        variables: variables of the trained network.
        factors: path of each layer -> factors, from `kronecker_factors`.
        examples: N.
        precision: τ.
        scale: factor of the noise, chosen on held-out data; 1 is the Laplace approximation.
    """

    variables: Mapping[str, Any]
    factors: Mapping[str, Factors]
    examples: int
    precision: float
    scale: float = 1.0

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Yields samples; sample i has the key ``fold_in(key, i)``."""
        cholesky = functools.partial(
            damped_cholesky, examples=self.examples, precision=self.precision
        )
        lower = {
            path: (cholesky(f.inputs), cholesky(f.outputs)) for path, f in self.factors.items()
        }
        sample = jax.jit(_sampled_params)
        number = first
        while True:
            params = sample(
                jax.random.fold_in(key, number), dict(self.variables["params"]), lower, self.scale
            )
            yield jax.device_get({**self.variables, "params": params})
            number += 1


def _sampled_params(
    key: PRNGKeyArray, params: Any, lower: Mapping[str, tuple[Array, Array]], scale: Any
) -> Any:
    leaves = {}
    kernels = kernel_paths(params)
    for path, part in zip(sorted(lower), jax.random.split(key, len(lower)), strict=True):
        kernel = kernels[path]
        noise = scale * sample_matrix(part, *lower[path])
        taps = kernel.size // kernel.shape[-1]
        leaves[f"{path}/{KERNEL}"] = kernel + noise[:taps].reshape(kernel.shape)
        if len(noise) > taps:
            leaves[f"{path}/{BIAS}"] = _leaf(params, f"{path}/{BIAS}") + noise[taps]
    return replace_leaves(params, leaves)


def _leaf(params: Any, path: str) -> Array:
    for name in path.split("/"):
        params = params[name]
    return params
