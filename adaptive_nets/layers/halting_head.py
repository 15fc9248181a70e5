"""Head of a residual unit that says whether to go on [figurnov2017]."""

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
"""Of the logit, so that all units run at first and the last one has most of the weight."""


class HaltingHead(nn.Module):
    """Logit of halting after a unit: W̃ * x + W · mean(x) + b.

    With `norm`, as in the authors' code, both x and its mean are normalised first, each on its own;
    without, it is the paper's formula. Weights start from He's distribution, as the authors' do.
    Everything is computed in float32: in half precision the sums over units would saturate.

    Attributes:
        spatial: one logit for every position, with the 3x3 convolution W̃; otherwise one for the
            image, from the mean alone. W̃ = 0 makes them equal.
        norm: whether there are batch normalisations.
        slope: of a leaky ReLU after the normalisations; None for none.
        epsilon: of the normalisations.
        momentum: of the normalisations, share of the running statistics that is kept.
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
        """Logits, float32[N] or, if `spatial`, float32[N, H, W]."""
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
