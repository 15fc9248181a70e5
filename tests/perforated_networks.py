"""Two small networks of what comes between convolutions, and what they compute, in NumPy.

The oracles evaluate every convolution densely in double precision and copy nearest positions, layer
after layer: nothing of the compact tensors is in them.
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from numpy_layers import conv, relu

from adaptive_nets.layers import (
    avg_pool,
    batch_norm,
    global_avg_pool,
    local_response_norm,
    max_pool,
)
from adaptive_nets.perforation import LayerMask


class Plain(nn.Module):
    """Biases, response normalisation, 1x1 convolutions, groups, pooling of three kinds, dropout."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Logits."""
        x = nn.relu(nn.Conv(4, (5, 5), padding=2, name="conv1")(x))
        x = nn.relu(nn.Conv(6, (1, 1), name="mixer")(x))
        x = local_response_norm(x, size=3, alpha=0.5)
        x = max_pool(x, (3, 3), (2, 2), ceil_mode=True)
        x = nn.relu(nn.Conv(4, (3, 3), padding=1, feature_group_count=2, name="conv2")(x))
        x = nn.relu(nn.Conv(6, (3, 3), padding=1, name="conv3")(x))
        x = avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False)
        x = nn.Dropout(0.5)(x, deterministic=not train)
        x = nn.tanh(nn.Conv(5, (3, 3), padding=1, name="conv4")(x))
        return nn.Dense(3, name="fc")(global_avg_pool(x))


class Residual(nn.Module):
    """Batch normalisation, a residual sum, gates per channel, concatenation, tiled pooling."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        """Logits."""

        def convolve(x, features, name, stride=1):
            pads = ((1, 1), (1, 1))
            layer = nn.Conv(
                features, (3, 3), (stride, stride), padding=pads, use_bias=False, name=name
            )
            return batch_norm(train, name=f"{name}_bn")(layer(x))

        x = nn.relu(convolve(x, 4, "stem"))
        y = nn.relu(convolve(x, 4, "inner"))
        y = nn.Dropout(0.25)(y, deterministic=not train)
        y = convolve(y, 4, "outer")
        y = y * nn.sigmoid(jnp.mean(y, axis=(1, 2), keepdims=True))
        x = nn.relu(x + y)
        x = max_pool(jnp.concatenate([x, nn.silu(convolve(x, 2, "branch"))], axis=3), (2, 2))
        x = nn.softplus(convolve(x, 4, "last"))
        x = avg_pool(x, (2, 2)).reshape(x.shape[0], -1)
        return nn.Dense(3, name="fc")(x)


def copied(y: np.ndarray, mask: LayerMask | None) -> np.ndarray:
    """Every position the value of the nearest kept one."""
    if mask is None:
        return y
    flat = y.reshape(y.shape[0], -1, y.shape[3])
    return flat[:, mask.nearest.ravel()].reshape(y.shape)


def _windows(x, size, stride, pads, reduce):
    padded = np.pad(x, ((0, 0), pads, pads, (0, 0)), constant_values=np.nan)
    places = range(0, padded.shape[1] - size + 1, stride)
    rows = [
        [reduce(padded[:, i : i + size, j : j + size], axis=(1, 2)) for j in places] for i in places
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def plain_oracle(variables, x, masks: Mapping[str, LayerMask]) -> np.ndarray:
    """`Plain` at test."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def layer(name, x, **options):
        y = conv(x, p[name]["kernel"], p[name]["bias"], **options)
        return copied(y, masks.get(name))

    x = relu(layer("mixer", relu(layer("conv1", x, pad=2))))
    energy = x**2
    energy[..., 1:] += x[..., :-1] ** 2
    energy[..., :-1] += x[..., 1:] ** 2
    x = x / (1 + 0.5 / 3 * energy) ** 0.75
    overhang = (3 - x.shape[1]) % 2
    x = _windows(x, 3, 2, (0, overhang), np.nanmax)
    x = relu(layer("conv3", relu(layer("conv2", x, pad=1, groups=2)), pad=1))
    x = np.tanh(layer("conv4", _windows(x, 3, 1, (1, 1), np.nanmean), pad=1))
    return x.mean(axis=(1, 2)) @ p["fc"]["kernel"] + p["fc"]["bias"]


def residual_oracle(variables, x, masks: Mapping[str, LayerMask]) -> np.ndarray:
    """`Residual` at test."""
    p, s = (
        jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables[name])
        for name in ("params", "batch_stats")
    )

    def layer(name, x):
        y = copied(conv(x, p[name]["kernel"], pad=1), masks.get(name))
        mean, variance = s[f"{name}_bn"]["mean"], s[f"{name}_bn"]["var"]
        scale, bias = p[f"{name}_bn"]["scale"], p[f"{name}_bn"]["bias"]
        return (y - mean) / np.sqrt(variance + 1e-5) * scale + bias

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    x = relu(layer("stem", x))
    y = layer("outer", relu(layer("inner", x)))
    x = relu(x + y * sigmoid(y.mean(axis=(1, 2), keepdims=True)))
    branch = layer("branch", x)
    x = _windows(np.concatenate([x, branch * sigmoid(branch)], axis=3), 2, 2, (0, 0), np.max)
    x = _windows(np.log1p(np.exp(layer("last", x))), 2, 2, (0, 0), np.mean)
    return x.reshape(len(x), -1) @ p["fc"]["kernel"] + p["fc"]["bias"]
