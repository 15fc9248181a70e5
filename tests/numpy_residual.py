"""Oracles of the residual and dense families in float64 NumPy, and variables to try them with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from numpy_layers import conv


def batch_norm(x, variables, name, *, epsilon=1e-5, train=False):
    """Normalisation over all axes but the last, with the variables of a unit's layer."""
    params = variables["params"].get(name, {})
    axes = tuple(range(x.ndim - 1))
    stats = variables["batch_stats"][name]
    mean = x.mean(axes) if train else np.asarray(stats["mean"], np.float64)
    var = x.var(axes) if train else np.asarray(stats["var"], np.float64)
    scale = np.asarray(params.get("scale", 1.0), np.float64)
    shift = np.asarray(params.get("bias", 0.0), np.float64)
    return (x - mean) / np.sqrt(var + epsilon) * scale + shift


def conv_of(x, variables, name, *, stride=1, groups=1, bias=False):
    """The convolution of that name, padded by half its kernel."""
    layer = variables["params"][name]
    assert ("bias" in layer) == bias
    pad = layer["kernel"].shape[0] // 2
    return conv(x, layer["kernel"], layer.get("bias"), stride=stride, pad=pad, groups=groups)


def squeeze_excitation(x, params, *, names=("fc1", "fc2")):
    """x * sigmoid(W2 relu(W1 mean(x)))."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    first, second = (params[name] for name in names)
    hidden = np.maximum(x.mean((1, 2)) @ first["kernel"] + first.get("bias", 0.0), 0)
    gates = hidden @ second["kernel"] + second.get("bias", 0.0)
    return x / (1 + np.exp(-gates))[:, None, None, :]


def random_variables(module, *args, seed=0, **kwargs):
    """Variables of a module, all of them random: no scale is one, no mean zero."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **kwargs))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name == "kernel":
            values = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            values = rng.normal(0, 0.5, leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def images(*shape, seed=1):
    """Standard normal float32[N, H, W, C]."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
