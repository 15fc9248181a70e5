"""Trained networks as StableHLO programs that run without this package.

`jax.export` writes the program of the dense form of a network with its weights as constants. The
file needs JAX alone:

    program = jax.export.deserialize(pathlib.Path("network.stablehlo").read_bytes())
    logits = program.call(images)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float

from adaptive_nets.models.adaptive.network import AdaptiveNetwork
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a program is written for; lowering needs none of them."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Serialised program of a network.

    Attributes:
        content: bytes that `jax.export.deserialize` reads.
        batch: size of the batch; None for any.
        platforms: platforms that it runs on.
        reason: why the batch is fixed though it was to be any; "" otherwise.
    """

    content: bytes
    batch: int | None
    platforms: tuple[str, ...]
    reason: str = ""


def normalised(
    pixels: Float[Array, "N H W C"], normalisation: InputNormalisation
) -> Float[Array, "N H W C"]:
    """Computes `InputNormalisation.apply` in JAX.

    Args:
        pixels: float[N, H, W, C] in [0, 255].
        normalisation: normalisation of the inputs.
    """
    x = jnp.asarray(pixels, jnp.float32) / np.float32(normalisation.pixel_scale)
    x = (x - normalisation.offset[None]) * normalisation.scale[None]
    if normalisation.per_image:
        # A constant image has no deviation; it becomes zero.
        least = np.float32(float(np.prod(x.shape[1:])) ** -0.5)
        axes = (1, 2, 3)
        deviation = jnp.maximum(x.std(axes, keepdims=True), least)
        x = (x - x.mean(axes, keepdims=True)) / deviation
    return x


def forward_function(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    pixels: InputNormalisation | None = None,
) -> Callable[[Float[Array, "N H W C"]], Float[Array, "N K"]]:
    """Returns the function that a program computes: images -> logits.

    Networks of adaptive depth run densely; each position or image stops at its threshold, as in
    ``module.apply(variables, images, train=False)``.

    Args:
        module: the network.
        variables: variables of the network, constants of the program.
        pixels: normalisation to include; the images are then pixels in [0, 255]. None for images
            that are normalised already.
    """
    options: dict[str, Any] = {"execution": "dense"} if isinstance(module, AdaptiveNetwork) else {}

    def forward(images: Any) -> Any:
        x = images if pixels is None else normalised(images, pixels)
        return module.apply(variables, x, train=False, **options)

    return forward


def export_program(
    forward: Callable[[Any], Any],
    input_shape: tuple[int, ...],
    *,
    batch: int | None = None,
    fixed_batch: int | None = None,
    platforms: tuple[str, ...] = PLATFORMS,
) -> Program:
    """Lowers a function of images and serialises it.

    Args:
        forward: float32[N, H, W, C] -> logits float[N, K].
        input_shape: (H, W, C).
        batch: N; None for any.
        fixed_batch: N to take if a program for any N cannot be lowered; None raises an error.
        platforms: platforms to lower for.

    Raises:
        UserError: flatbuffers, which JAX needs to write programs, is not installed; or the function
            cannot be lowered.
    """
    _require_flatbuffers()
    sizes = ", ".join(["batch", *map(str, input_shape)])
    shape = export.symbolic_shape(sizes) if batch is None else (batch, *input_shape)
    try:
        lowered = export.export(jax.jit(forward), platforms=platforms)(
            jax.ShapeDtypeStruct(shape, jnp.float32)
        )
    except Exception as error:  # Tracing with a symbolic size raises many types.
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
        if batch is None and fixed_batch is not None:
            program = export_program(forward, input_shape, batch=fixed_batch, platforms=platforms)
            return dataclasses.replace(program, reason=reason)
        size = "any batch" if batch is None else f"batch {batch}"
        remedy = "; --batch N fixes its size" if batch is None else ""
        raise UserError(f"the network has no program for {size} ({reason}){remedy}") from error
    return Program(bytes(lowered.serialize()), batch, platforms)


def read_program(content: bytes, *, source: str) -> export.Exported:
    """Deserialises a program; `call` runs it.

    Args:
        content: bytes of the file.
        source: name of the file in messages.

    Raises:
        UserError: flatbuffers is not installed, or the bytes are no program.
    """
    _require_flatbuffers()
    try:
        return export.deserialize(bytearray(content))
    except Exception as error:  # Damaged bytes raise many types.
        raise UserError(
            f"{source} is damaged or no program of jax.export ({type(error).__name__})"
        ) from error


def _require_flatbuffers() -> None:
    try:
        import flatbuffers  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--to stablehlo needs the package flatbuffers, with which JAX writes programs; "
            "pip install 'adaptive-nets[export]', or pip install flatbuffers"
        ) from error
