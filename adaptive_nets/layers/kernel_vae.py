"""Networks of the deep weight prior: encoder and decoder of kernel slices [atanov2019].

One architecture for each kernel size. Every listed convolution is followed by ELU; two 1x1
convolutions then give mean and variance. Variances have a floor, which the authors' code lacks.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import LECUN
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational.deep_weight_prior.arguments import check_floor
from adaptive_nets.variational.deep_weight_prior.densities import (
    FLOOR,
    Gaussian,
    floored_variance,
)

Padding = Literal["VALID", "SAME", "REFLECT"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Convolution of an encoder or a decoder.

    Attributes:
        size: side of its kernel.
        width: output channels as a multiple of the hidden width.
        padding: "VALID", "SAME", or "REFLECT", which mirrors one row and column.
        stride: stride of a transposed convolution.
        pool: side of the maximum pooling between an encoder's convolution and its ELU.
    """

    size: int
    width: int
    padding: Padding = "VALID"
    stride: int = 1
    pool: int = 1


@dataclasses.dataclass(frozen=True)
class Architecture:
    """Architecture for one kernel size.

    Attributes:
        encoder: convolutions from the slice to one position.
        decoder: transposed convolutions from one position to the slice.
        hidden: default hidden width.
        latent: default number of latent variables.
        slice_variance: fixed variance of p(w|z); None if the decoder computes it.
    """

    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    hidden: int
    latent: int
    slice_variance: float | None = None


ARCHITECTURES: dict[tuple[int, int], Architecture] = {
    (7, 7): Architecture(
        encoder=(Stage(3, 1), Stage(3, 2), Stage(3, 2)),
        decoder=(Stage(3, 2), Stage(3, 2), Stage(3, 1)),
        hidden=32,
        latent=2,
    ),
    (5, 5): Architecture(
        encoder=(Stage(3, 1, "SAME"), Stage(3, 1, "SAME"), Stage(3, 2), Stage(3, 2)),
        decoder=(Stage(1, 2), Stage(3, 2), Stage(3, 2), Stage(1, 1)),
        hidden=64,
        latent=4,
    ),
    (3, 3): Architecture(
        encoder=(Stage(3, 1, "SAME"), Stage(3, 1, "SAME"), Stage(3, 2)),
        decoder=(Stage(1, 2), Stage(3, 1), Stage(1, 1)),
        hidden=16,
        latent=8,
        slice_variance=1e-3,
    ),
    (16, 16): Architecture(
        encoder=tuple(Stage(3, width, "REFLECT", pool=2) for width in (1, 2, 2, 2)),
        # A transposed convolution of size 4 and stride 2 that pads by one row doubles the side.
        decoder=(
            Stage(1, 2),
            Stage(4, 2, stride=2),
            Stage(4, 2, "SAME", 2),
            Stage(4, 1, "SAME", 2),
        ),
        hidden=32,
        latent=2,
    ),
}
"""Architectures of the authors' code by kernel size; those of 3x3 are defined there but unused."""


class SliceEncoder(nn.Module):
    """Reverse model r(z|w) of a slice's latent variables.

    Attributes:
        kernel_size: (h, w), a key of `ARCHITECTURES`.
        hidden: hidden width.
        latent: number of latent variables D.
        floor: floor of the variances.
    """

    kernel_size: tuple[int, int]
    hidden: int
    latent: int
    floor: float = FLOOR

    @nn.compact
    def __call__(self, slices: Float[Array, "N h w"]) -> Gaussian:
        """Returns the Gaussian over float[N, D]."""
        x = slices[..., None]
        for index, stage in enumerate(ARCHITECTURES[self.kernel_size].encoder, 1):
            padding = stage.padding
            if padding == "REFLECT":
                x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
                padding = "VALID"
            x = _conv(stage.width * self.hidden, stage.size, padding, f"conv{index}")(x)
            if stage.pool > 1:
                window = (stage.pool, stage.pool)
                x = nn.max_pool(x, window, window)
            x = nn.elu(x)
        mean, raw = (_conv(self.latent, 1, "VALID", name)(x) for name in ("mean", "variance"))
        return Gaussian(mean[:, 0, 0], floored_variance(raw[:, 0, 0], self.floor))


class SliceDecoder(nn.Module):
    """Model p(w|z) of a slice given its latent variables.

    Attributes:
        kernel_size: (h, w), a key of `ARCHITECTURES`.
        hidden: hidden width.
        floor: floor of the variances.
    """

    kernel_size: tuple[int, int]
    hidden: int
    floor: float = FLOOR

    @nn.compact
    def __call__(self, latents: Float[Array, "N D"]) -> Gaussian:
        """Returns the Gaussian over float[N, h, w]."""
        architecture = ARCHITECTURES[self.kernel_size]
        x = latents[:, None, None, :]
        for index, stage in enumerate(architecture.decoder, 1):
            features, name = stage.width * self.hidden, f"conv{index}"
            if stage.stride == 1:
                # A transposed convolution of stride 1 is a convolution with full padding.
                layer = _conv(features, stage.size, stage.size - 1, name)
            else:
                layer = nn.ConvTranspose(
                    features,
                    (stage.size, stage.size),
                    (stage.stride, stage.stride),
                    stage.padding,
                    kernel_init=LECUN,
                    name=name,
                )
            x = nn.elu(layer(x))
        mean = _conv(1, 1, "VALID", "mean")(x)[..., 0]
        if architecture.slice_variance is not None:
            return Gaussian(mean, jnp.full_like(mean, max(architecture.slice_variance, self.floor)))
        raw = _conv(1, 1, "VALID", "variance")(x)[..., 0]
        return Gaussian(mean, floored_variance(raw, self.floor))


def _conv(features: int, size: int, padding: str | int, name: str) -> Conv:
    return Conv(features, (size, size), padding=padding, kernel_init=LECUN, name=name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KernelVAE:
    """Variational autoencoder of kernel slices, a prior for `variational.deep_weight_prior`.

    It is a pytree of its parameters: train it, differentiate by it, or freeze it with
    `jax.lax.stop_gradient`.

    Attributes:
        params: {"encoder": parameters, "decoder": parameters}.
        encoder: network of r(z|w).
        decoder: network of p(w|z).
    """

    params: Any
    encoder: SliceEncoder = dataclasses.field(metadata={"static": True})
    decoder: SliceDecoder = dataclasses.field(metadata={"static": True})

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of a slice."""
        return self.encoder.kernel_size

    @property
    def latent_size(self) -> int:
        """Number of latent variables of a slice."""
        return self.encoder.latent

    @property
    def hidden(self) -> int:
        """Hidden width."""
        return self.encoder.hidden

    @property
    def floor(self) -> float:
        """Floor of the variances."""
        return self.encoder.floor

    def encode(self, slices: Float[Array, "N h w"]) -> Gaussian:
        """Returns r(z|w), a Gaussian over float[N, D]."""
        found = self.encoder.apply({"params": self.params["encoder"]}, slices)
        assert isinstance(found, Gaussian)
        return found

    def decode(self, latents: Float[Array, "N D"]) -> Gaussian:
        """Returns p(w|z), a Gaussian over float[N, h, w]."""
        found = self.decoder.apply({"params": self.params["decoder"]}, latents)
        assert isinstance(found, Gaussian)
        return found


def kernel_vae(
    key: PRNGKeyArray,
    kernel_size: tuple[int, int],
    *,
    hidden: int | None = None,
    latent: int | None = None,
    floor: float = FLOOR,
) -> KernelVAE:
    """Builds an untrained prior of slices with the architecture of its kernel size.

    Args:
        key: PRNG key of the initial parameters.
        kernel_size: (7, 7), (5, 5), (3, 3) or (16, 16).
        hidden: hidden width; None for that of [atanov2019].
        latent: number of latent variables; None for that of [atanov2019].
        floor: floor of every variance.

    Raises:
        UserError: there is no architecture of this size, or an argument is out of range.

    Example:
        >>> import jax
        >>> prior = kernel_vae(jax.random.key(0), (7, 7))
        >>> prior.decode(jax.numpy.zeros((10, 2))).mean.shape
        (10, 7, 7)
    """
    size = tuple(kernel_size) if isinstance(kernel_size, (tuple, list)) else (kernel_size,)
    if size not in ARCHITECTURES:
        known = ", ".join("x".join(map(str, known)) for known in ARCHITECTURES)
        raise UserError(
            f"kernel_size is {'x'.join(map(str, size))}; expected one of {known}, which have an "
            "architecture"
        )
    height, width = cast(tuple[int, int], size)
    chosen = ARCHITECTURES[height, width]
    hidden = as_integer("hidden", chosen.hidden if hidden is None else hidden)
    latent = as_integer("latent", chosen.latent if latent is None else latent)
    floor = check_floor(floor)
    encoder = SliceEncoder((height, width), hidden, latent, floor)
    decoder = SliceDecoder((height, width), hidden, floor)

    # One program instead of one for each parameter: seconds less on a CPU.
    @jax.jit
    def init(key: PRNGKeyArray) -> dict[str, Any]:
        of_encoder, of_decoder = jax.random.split(key)
        return {
            "encoder": encoder.init(of_encoder, jnp.zeros((1, height, width)))["params"],
            "decoder": decoder.init(of_decoder, jnp.zeros((1, latent)))["params"],
        }

    return KernelVAE(init(key), encoder, decoder)
