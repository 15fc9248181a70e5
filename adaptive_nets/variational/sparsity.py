"""Sparsity of a variational network: weights kept below a dropout-rate threshold, per layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from adaptive_nets.variational.log_uniform import kl_log_uniform, log_alpha

# log α = 3 corresponds to a binary dropout rate above 0.95. The histogram of log α is bimodal, so
# results depend little on the exact value (issue 9 of the authors' repository).
THRESHOLD = 3.0


def keep_mask(
    theta: Float[Array, "..."], log_sigma2: Float[Array, "..."], *, threshold: float = THRESHOLD
) -> Bool[Array, "..."]:
    """Computes the mask of kept weights: log α < threshold."""
    return log_alpha(theta, log_sigma2) < threshold


RATES = ("log_sigma2", "log_alpha")
"""Leaves beside a kernel that make its layer variational: the additive form, and the
multiplicative one."""


def layer_log_alpha(layer: Mapping[str, Any]) -> Float[Array, "..."] | None:
    """Computes log α, in float32, of a layer's parameters; None if it is not variational.

    Args:
        layer: parameters of one layer; ``kernel`` beside one of `RATES` makes it variational.
    """
    if "kernel" not in layer:
        return None
    if "log_alpha" in layer:
        return jnp.asarray(layer["log_alpha"], jnp.float32)
    if "log_sigma2" in layer:
        theta, log_sigma2 = layer["kernel"], layer["log_sigma2"]
        return log_alpha(theta.astype(jnp.float32), log_sigma2.astype(jnp.float32))
    return None


def variational_layers(params: Mapping[str, Any]) -> Iterator[tuple[str, Array, Array]]:
    """Yields (path, θ, log α) of every variational layer of a parameter tree."""
    rates = layer_log_alpha(params)
    if rates is not None:
        yield "", params["kernel"], rates
    for name, child in params.items():
        if isinstance(child, Mapping):
            for path, theta, rates in variational_layers(child):
                yield (f"{name}/{path}" if path else name), theta, rates


def kl_divergence(params: Mapping[str, Any]) -> Float[Array, ""]:
    """Sums the KL divergences of all variational layers in `params`, in nats (float32)."""
    total = jnp.zeros((), jnp.float32)
    for _, _, rates in variational_layers(params):
        total += jnp.sum(kl_log_uniform(rates))
    return total


@dataclasses.dataclass(frozen=True)
class LayerSparsity:
    """Number of weights of one layer and number kept, biases excluded."""

    layer: str
    weights: int
    kept: int

    @property
    def sparsity(self) -> float:
        """Returns the fraction of weights removed."""
        return 1.0 - self.kept / self.weights


def layer_sparsity(
    params: Mapping[str, Any], *, threshold: float = THRESHOLD
) -> tuple[LayerSparsity, ...]:
    """Counts kept weights per layer, in the order of the parameter tree.

    Linen orders parameters by creation during `init` and by name afterwards. Layer names such as
    conv1, conv2, fc1 make both orders equal the order of execution.
    """
    layers = list(variational_layers(params))
    kept = jax.device_get([jnp.sum(rates < threshold) for _, _, rates in layers])
    return tuple(
        LayerSparsity(path, int(theta.size), int(count))
        for (path, theta, _), count in zip(layers, kept, strict=True)
    )


def compression(layers: tuple[LayerSparsity, ...]) -> float:
    """Computes the compression rate |W| / |W ≠ 0| over all layers; inf if no weight is kept."""
    kept = sum(layer.kept for layer in layers)
    weights = sum(layer.weights for layer in layers)
    return weights / kept if kept else float("inf")


def linear_warmup(step: Array | int, *, start: float, end: float) -> Float[Array, ""]:
    """Computes the KL weight β: 0 before step `start`, 1 from step `end` on, linear between."""
    ramp = (jnp.asarray(step, jnp.float32) - start) / max(end - start, 1.0)
    return jnp.clip(ramp, 0.0, 1.0)
