"""Variational autoencoder of 28x28 images, for the speed of its convergence.

The authors released no network for this experiment; ours has convolutions of 7x7 and 5x5, so that
the priors of the target network fit, and as many channels.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.models.kernel_prior_nets import XAVIER_NORMAL
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Task
from adaptive_nets.variational.deep_weight_prior import kl_standard_normal

WIDTHS = (32, 128)
LATENT = 40
_NOISE = "noise"


class ImageVAE(nn.Module):
    """Autoencoder with a Gaussian posterior and Bernoulli pixels.

    Attributes:
        widths: channels of the 7x7 and of the 5x5 convolutions.
        latent: number of latent variables.
    """

    widths: tuple[int, ...] = WIDTHS
    latent: int = LATENT

    @nn.compact
    def __call__(
        self, x: Float[Array, "N 28 28 1"], train: bool = False
    ) -> tuple[Float[Array, "N 28 28 1"], Float[Array, " N"]]:
        """Returns the logits of the pixels and KL(q(z|x) || p(z)), nats per image."""
        narrow, wide = self.widths
        y = nn.leaky_relu(_conv(narrow, 7, "VALID", "conv1")(x))
        y = nn.avg_pool(y, (2, 2), (2, 2))
        y = nn.leaky_relu(_conv(wide, 5, "VALID", "conv2")(y)).reshape(len(x), -1)
        mean, log_variance = (_dense(self.latent, n)(y) for n in ("mean", "log_variance"))
        # In evaluation the same noise every time, so that differences are those of the weights.
        key = self.make_rng(_NOISE) if train else jax.random.key(0)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        latents = mean + jnp.exp(0.5 * log_variance) * noise
        y = nn.leaky_relu(_dense(7 * 7 * wide, "decoded")(latents)).reshape(len(x), 7, 7, wide)
        # Full padding: the transposed convolution of stride 1.
        y = nn.leaky_relu(_conv(narrow, 5, 4, "conv3")(y))
        y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)
        logits = _conv(1, 7, 6, "conv4")(y)
        return logits, jnp.sum(kl_standard_normal(mean, log_variance), axis=1)


def _conv(features: int, size: int, padding: Any, name: str) -> Conv:
    return Conv(features, (size, size), padding=padding, kernel_init=XAVIER_NORMAL, name=name)


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=XAVIER_NORMAL, name=name)


def bounds(output: tuple[Array, Array], images: Float[Array, "N 28 28 1"]) -> Float[Array, " N"]:
    """Computes the evidence lower bound of every image by one draw, nats.

    Args:
        output: logits of the pixels, and divergences.
        images: pixels in [0, 1], taken as probabilities.
    """
    logits, divergence = output
    likelihood = -optax.sigmoid_binary_cross_entropy(logits, images)
    return jnp.sum(likelihood, axis=(1, 2, 3)) - divergence


def task(module: ImageVAE) -> Task:
    """Builds the task of maximising the bound."""

    def objective(output: Any, batch: Batch, params: Any, step: Array):
        del params, step
        found = bounds(output, batch["image"])
        return -jnp.mean(found), {"bound": Mean.of(found)}

    def measures(output: Any, batch: Batch) -> dict[str, Mean]:
        return {"bound": Mean.of(bounds(output, batch["image"]), batch[WEIGHT])}

    return Task(model=module, objective=lambda timing: objective, measures=measures)
