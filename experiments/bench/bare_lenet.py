"""LeNet-300-100 and its training step in bare JAX.

Baseline of the training loop: without modules, optimiser library, metrics and checks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

WIDTHS = (784, 300, 100, 10)
LEARNING_RATE, DECAY, SECOND_DECAY, EPSILON = 1e-3, 0.9, 0.999, 1e-8
K1, K2, K3 = 0.63576, 1.87320, 1.48695
LOW, HIGH = math.exp(-8.0), math.exp(8.0)


def init(key: Array, *, sparse: bool) -> dict[str, Any]:
    """Initialises parameters, Adam's moments and the step count."""
    params = []
    for inputs, outputs in itertools.pairwise(WIDTHS):
        key, subkey = jax.random.split(key)
        layer = {"w": 0.05 * jax.random.normal(subkey, (inputs, outputs)), "b": jnp.zeros(outputs)}
        if sparse:
            # An explicit dtype: with a weak type the step would be compiled twice.
            layer["s"] = jnp.full((inputs, outputs), -10.0, jnp.float32)
        params.append(layer)
    zeros = jax.tree.map(jnp.zeros_like, params)
    return {"params": params, "m": zeros, "v": jax.tree.map(jnp.copy, zeros), "step": jnp.int32(0)}


def _rates(layer: dict[str, Array]) -> Array:
    return layer["s"] - 2.0 * jnp.log(jnp.maximum(jnp.abs(layer["w"]), 1e-38))


def _divergence(log_alpha: Array) -> Array:
    log_alpha = jnp.clip(log_alpha, -8.0, 8.0)
    return jnp.sum(
        K1 + 0.5 * jax.nn.softplus(-log_alpha) - K1 * jax.nn.sigmoid(K2 + K3 * log_alpha)
    )


def make_step(
    batch_size: int, *, sparse: bool, weight_decay: float
) -> Callable[..., dict[str, Any]]:
    """Builds the step (state, images uint8, labels, mean image, order, key) -> state."""

    def loss(params, x, labels, key, examples):
        penalty = 0.0
        for i, layer in enumerate(params):
            if sparse:
                rates = _rates(layer)
                mean = x @ jnp.where(rates < 3.0, layer["w"], 0.0)
                square = layer["w"] ** 2
                sigma2 = jnp.clip(jnp.exp(layer["s"]), LOW * square, HIGH * square)
                variance = (x * x) @ sigma2
                key, subkey = jax.random.split(key)
                noise = jax.random.normal(subkey, mean.shape)
                x = mean + jnp.sqrt(variance + 1e-8) * noise + layer["b"][None]
                penalty += _divergence(rates)
            else:
                x = x @ layer["w"] + layer["b"][None]
            if i + 1 < len(params):
                x = jnp.maximum(x, 0.0)
        log_probs = jax.nn.log_softmax(x)
        picked = jnp.take_along_axis(log_probs, labels[:, None], axis=1)
        return -jnp.mean(picked) + penalty / examples

    def step(state, images, labels, mean, order, key):
        count = state["step"]
        position = count % (order.shape[0] // batch_size)
        indices = lax.dynamic_slice(order, (position * batch_size,), (batch_size,))
        x = images[indices].astype(jnp.float32).reshape(batch_size, -1) / 256.0 - mean[None]
        key = jax.random.fold_in(key, count)
        grads = jax.grad(loss)(state["params"], x, labels[indices], key, order.shape[0])
        if weight_decay:
            pairs = zip(grads, state["params"], strict=True)
            grads = [{**g, "w": g["w"] + weight_decay * p["w"]} for g, p in pairs]
        t = (count + 1).astype(jnp.float32)
        tree = jax.tree.map
        m = tree(lambda m, g: DECAY * m + (1 - DECAY) * g, state["m"], grads)
        v = tree(lambda v, g: SECOND_DECAY * v + (1 - SECOND_DECAY) * g * g, state["v"], grads)

        def update(p, m, v):
            unbiased = m / (1 - DECAY**t)
            return p - LEARNING_RATE * unbiased / (jnp.sqrt(v / (1 - SECOND_DECAY**t)) + EPSILON)

        return {"params": tree(update, state["params"], m, v), "m": m, "v": v, "step": count + 1}

    return step
