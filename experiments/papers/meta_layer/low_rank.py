"""Network of the study with ordinary convolutions and a factorised dense layer.

The first dense layer of the head, K -> H, is a product of K -> r without a bias and r -> H. It is
the plain way to save parameters there, to which a Meta head is compared at equal size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adaptive_nets.layers import adaptive_avg_pool, fan_in_uniform
from adaptive_nets.layers.prelu import PReLU
from adaptive_nets.models.meta_study import BodyTest1, BodyTest2, BodyTest3, Replacement


class LowRankNet(nn.Module):
    """Network with the body of ``meta_study_conv2d_TEST`` and a head of low rank.

    Parameters have the names of that network, except for the two factors.

    Attributes:
        test: number of the test, 1, 2 or 3.
        rank: rank r of the first dense layer.
        num_classes: number of logits.
        dtype: dtype of the computation.
    """

    test: int
    rank: int
    num_classes: int = 10
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        body = {1: BodyTest1, 2: BodyTest2, 3: BodyTest3}[self.test]
        x = body(Replacement(), dtype=self.dtype, name="body")(x, train)
        if self.test != 1:
            side = 3 if self.test == 2 else 4
            x = adaptive_avg_pool(x, (side, side))
        hidden = 40 if self.test == 1 else 64
        return LowRankHead(self.rank, hidden, self.num_classes, self.dtype, name="head")(x, train)


class LowRankHead(nn.Module):
    """Head of low rank, float[N, H, W, C] -> float[N, num_classes].

    Attributes:
        rank: rank r of the first dense layer.
        hidden: number of outputs of the first dense layer.
        num_classes: number of logits.
        dtype: dtype of the computation.
    """

    rank: int
    hidden: int
    num_classes: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of maps."""
        # Channel-major, as the heads of the study, so that `merged` gives their weights.
        x = jnp.transpose(x, (0, 3, 1, 2)).reshape(x.shape[0], -1)
        x = self._dense(x, self.rank, "fc1_in", use_bias=False)
        x = PReLU(name="prelu")(self._dense(x, self.hidden, "fc1_out"))
        x = nn.Dropout(0.2)(x, deterministic=not train)
        return self._dense(x, self.num_classes, "fc2")

    def _dense(
        self, x: Float[Array, "N I"], features: int, name: str, *, use_bias: bool = True
    ) -> Float[Array, "N O"]:
        return nn.Dense(
            features,
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=fan_in_uniform.kernel_init(),
            bias_init=fan_in_uniform.bias_init(x.shape[-1]),
            name=name,
        )(x)


def merged(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Multiplies the factors, which gives variables of ``meta_study_conv2d_TEST``.

    Args:
        variables: variables of a `LowRankNet`.

    Returns:
        Variables with one kernel, float32[K, H], in place of the two factors.
    """
    params = dict(variables["params"])
    head = dict(params["head"])
    first, second = head.pop("fc1_in"), head.pop("fc1_out")
    kernel = np.asarray(first["kernel"]) @ np.asarray(second["kernel"])
    head["fc1"] = {"kernel": kernel, "bias": second["bias"]}
    return {**variables, "params": {**params, "head": head}}
