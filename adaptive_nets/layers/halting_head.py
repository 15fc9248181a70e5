"""Halting head of a residual unit [figurnov2017]."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import batch_norm, conv
from adaptive_nets.layers.kernel_init import HE_FAN_IN
from adaptive_nets.layers.pooling import global_avg_pool

BIAS = -3.0
"""Initial bias of the logit; low, so that at first all units run and the last has most weight."""


class HaltingHead(nn.Module):
    """Logit of halting after a unit: W̃ * x + W · mean(x) + b.

    With `norm`, x and its mean are first batch-normalised separately, as in the authors' code;
    without it the head is the paper's formula. Weights use He initialisation, as the authors' do.
    The head computes in float32, since sums over units would saturate in half precision.

    Attributes:
        spatial: whether to give one logit per position, with the 3x3 convolution W̃; otherwise one
            logit per image, from the mean. Both are equal if W̃ = 0.
        norm: whether to apply batch normalisation.
        slope: negative slope of a leaky ReLU after the normalisations; None for no activation.
        epsilon: constant added to the variance.
        momentum: decay rate of the running statistics.
        bias: initial value of b.
    """

    spatial: bool
    norm: bool = True
    slope: float | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9
    bias: float = BIAS

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"], train: bool = False
    ) -> Float[Array, "N"] | Float[Array, "N H W"]:
        """Computes logits, float32[N] or, if `spatial`, float32[N, H, W]."""
        x = x.astype(jnp.float32)
        bias = initializers.constant(self.bias)
        mean = self._normalise(global_avg_pool(x), "norm_global", train)
        dense: dict[str, Any] = {"kernel_init": HE_FAN_IN, "name": "dense_global"}
        if not self.spatial:
            return nn.Dense(1, bias_init=bias, **dense)(mean)[:, 0]
        overall = nn.Dense(1, use_bias=False, **dense)(mean)[:, 0]
        local = self._normalise(x, "norm_local", train)
        local = conv(1, (3, 3), kernel_init=HE_FAN_IN, name="conv_local")(local)[..., 0]
        offset = self.param("bias", bias, (), jnp.float32)
        return local + (overall + offset)[:, None, None]

    def _normalise(self, x: Array, name: str, train: bool) -> Array:
        if not self.norm:
            return x
        x = batch_norm(train, name=name, epsilon=self.epsilon, momentum=self.momentum)(x)
        return x if self.slope is None else nn.leaky_relu(x, self.slope)
