"""Meta layer, which mixes groups of channels by one small matrix, and grouped dense layers."""

from __future__ import annotations

from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers import fan_in_uniform
from adaptive_nets.runtime.errors import UserError

MetaInit = Literal["normal", "softmax", "scaled"]


def _split(x: Array, groups: int) -> Array:
    """Reshapes [..., C] to [..., groups, C / groups]."""
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise UserError(f"groups {groups} must divide the number of channels, {channels}")
    return x.reshape(*x.shape[:-1], groups, channels // groups)


def meta(x: Float[Array, "... C"], weight: Float[Array, "N M"]) -> Float[Array, "... M*C/N"]:
    """Mixes groups of channels, Y_m = Σ_n W[n, m]·X_n [kondaurova].

    Equals a 1x1 convolution with kernel W ⊗ I, I the identity of size C/N, at N
    multiply-accumulates per output.

    Args:
        x: float[..., C], N contiguous ranges of C/N channels.
        weight: float[N, M], weight of input group n in output group m.

    Returns:
        float[..., M·C/N], M contiguous ranges of C/N channels.

    Raises:
        UserError: N does not divide C.
    """
    groups = _split(x, weight.shape[0])
    mixed = jnp.einsum("...nc,nm->...mc", groups, weight)
    return mixed.reshape(*x.shape[:-1], -1)


class Meta(nn.Module):
    """Module that owns the matrix of `meta`, float[groups, outputs], without a bias.

    Attributes:
        groups: number N of input groups.
        outputs: number M of output groups.
        meta_init: "normal", standard normal, as published; "softmax", standard normal with a
            softmax over output groups applied at every use; "scaled", normal with standard
            deviation 1/√N, which preserves the variance.
        dtype: dtype of the computation.
    """

    groups: int
    outputs: int
    meta_init: MetaInit = "normal"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... C"]) -> Float[Array, "... M*C/N"]:
        """Applies `meta`."""
        if self.meta_init not in get_args(MetaInit):
            raise UserError(
                f"meta_init {self.meta_init!r} is unknown; expected one of "
                f"{', '.join(get_args(MetaInit))}"
            )
        deviation = self.groups**-0.5 if self.meta_init == "scaled" else 1.0
        weight = self.param(
            "weight", initializers.normal(deviation), (self.groups, self.outputs), jnp.float32
        )
        if self.meta_init == "softmax":
            weight = jax.nn.softmax(weight, axis=1)
        return meta(jnp.asarray(x, self.dtype), weight.astype(self.dtype))


class GroupedDense(nn.Module):
    """Separate dense layers for groups of features, float[N, K] -> float[N, G·L].

    The kernel is block-diagonal, with G·(K/G·L + L) parameters, uniform within ±1/√(K/G) at
    initialisation.

    Attributes:
        groups: number G of groups, contiguous ranges of the features.
        features: number of outputs L of each group.
        dtype: dtype of the computation.
    """

    groups: int
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N K"]) -> Float[Array, "N G*L"]:
        """Applies the layers; outputs are group major."""
        x = _split(jnp.asarray(x, self.dtype), self.groups)
        fan_in = x.shape[-1]
        kernel = self.param(
            "kernel",
            fan_in_uniform.kernel_init(batch_axis=(0,)),
            (self.groups, fan_in, self.features),
            jnp.float32,
        )
        bias = self.param(
            "bias", fan_in_uniform.bias_init(fan_in), (self.groups, self.features), jnp.float32
        )
        y = jnp.einsum("ngk,gkl->ngl", x, kernel.astype(self.dtype))
        y += bias.astype(self.dtype)[None]
        return y.reshape(x.shape[0], -1)
