"""Dense and convolutional layers with sparse variational dropout.

They stand in for `nn.Dense` and `nn.Conv`: ``nn.Dense(10)(x)`` becomes
``SparseDense(10)(x, train)``. `adaptive_nets.variational` has the penalty of the loss,
``kl_divergence(params) / number of training examples``, and `prune`, whose result are the
parameters of the original network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers.kernel_init import GLOROT_UNIFORM
from adaptive_nets.variational.local_reparameterisation import sample_linear
from adaptive_nets.variational.log_uniform import (
    LOG_ALPHA_LIMIT,
    log_alpha,
    multiplicative_variance,
    noise_variance,
)
from adaptive_nets.variational.sparsity import THRESHOLD
from kernels.dense_conv import conv_general_dilated

Initialiser = Callable[..., Array]
Parameterisation = Literal["additive", "multiplicative"]

# Name of the random stream of training noise.
NOISE = "noise"


def _add_bias(y: Array, bias: Array | None) -> Array:
    if bias is None:
        return y
    return y + jnp.reshape(bias.astype(y.dtype), (1,) * (y.ndim - 1) + (-1,))


class _SparseVariational(nn.Module, kw_only=True):
    """Base of both layers: posterior parameters, sampling in training, pruning in evaluation.

    Attributes:
        features: number of outputs O.
        dtype: dtype of the computation; parameters stay in float32.
        kernel_init: initialiser of θ.
        log_sigma2_init: initial value of log σ².
        threshold: weights with log α at or above it are removed.
        mask_in_training: whether to set the means of removed weights to zero in training too, as
            in the authors' LeNet scripts. As in those scripts, a dense layer keeps the noise of
            removed weights and a convolution drops it.
        clip_noise: whether the noise variance uses the clipped log α, as in the authors' ICML code;
            otherwise it is σ², as in their later minimal example.
        use_bias: whether to add a bias.
        parameterisation: "additive" trains θ and log σ². "multiplicative" trains θ and log α, the
            older form, from the same initial posterior; its noise always uses the clipped log α.
    """

    features: int
    dtype: Any = jnp.float32
    kernel_init: Initialiser = initializers.normal(0.01)
    log_sigma2_init: float = -10.0
    threshold: float = THRESHOLD
    mask_in_training: bool = True
    clip_noise: bool = True
    use_bias: bool = True
    parameterisation: Parameterisation = "additive"

    _masks_noise = False

    def _apply(self, x: Array, shape: tuple[int, ...], linear, train: bool) -> Array:
        theta = self.param("kernel", self.kernel_init, shape, jnp.float32)
        rates, sigma2 = self._posterior(theta)
        bias = None
        if self.use_bias:
            bias = self.param("bias", initializers.zeros, (self.features,), jnp.float32)
        x = jnp.asarray(x, self.dtype)
        kept = rates < self.threshold
        masked = jnp.where(kept, theta, 0.0)
        if not train:
            return _add_bias(linear(x, masked.astype(self.dtype)), bias)
        if self.mask_in_training:
            theta = masked
            sigma2 = jnp.where(kept, sigma2, 0.0) if self._masks_noise else sigma2
        y = sample_linear(self.make_rng(NOISE), x, theta.astype(self.dtype), sigma2, linear)
        return _add_bias(y, bias)

    def _posterior(self, theta: Array) -> tuple[Array, Array]:
        """Returns log α and the variance of the noise."""
        if self.parameterisation == "multiplicative":
            start = lambda key: jnp.clip(  # noqa: E731
                log_alpha(theta, jnp.full_like(theta, self.log_sigma2_init)),
                -LOG_ALPHA_LIMIT, LOG_ALPHA_LIMIT,
            )  # fmt: skip
            rates = self.param("log_alpha", start)
            return rates, multiplicative_variance(theta, rates)
        log_sigma2 = self.param(
            "log_sigma2", initializers.constant(self.log_sigma2_init), theta.shape, jnp.float32
        )
        sigma2 = noise_variance(theta, log_sigma2) if self.clip_noise else jnp.exp(log_sigma2)
        return log_alpha(theta, log_sigma2), sigma2


class SparseDense(_SparseVariational):
    """Dense layer, float[..., I] -> float[..., O]; training needs the random stream ``noise``."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "... I"], train: bool = False) -> Float[Array, "... O"]:
        """Samples the outputs in training; applies θ·1[log α < threshold] in evaluation."""
        return self._apply(x, (x.shape[-1], self.features), jnp.dot, train)


class SparseConv(_SparseVariational):
    """Convolution, float[N, H, W, C] -> float[N, H', W', O]; training needs stream ``noise``.

    Attributes:
        kernel_size: (height, width).
        strides: (vertical, horizontal), or a number for both.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or a number for all sides.
    """

    features: int
    kernel_size: tuple[int, int] = (3, 3)
    strides: int | tuple[int, int] = (1, 1)
    padding: str | int | Sequence[tuple[int, int]] = "SAME"
    kernel_init: Initialiser = dataclasses.field(default=GLOROT_UNIFORM, kw_only=True)

    _masks_noise = True

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Array:
        """Samples the outputs in training; applies θ·1[log α < threshold] in evaluation."""

        def convolve(inputs: Array, weights: Array) -> Array:
            return conv_general_dilated(
                inputs,
                weights,
                _pair(self.strides),
                self.padding if isinstance(self.padding, str) else _sides(self.padding),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )

        return self._apply(x, (*self.kernel_size, x.shape[-1], self.features), convolve, train)


def _pair(strides: int | tuple[int, int]) -> tuple[int, int]:
    return (strides, strides) if isinstance(strides, int) else strides


def _sides(padding: int | Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    return ((padding, padding),) * 2 if isinstance(padding, int) else padding
