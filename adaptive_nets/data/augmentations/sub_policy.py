"""Sub-policies: sequences of operations with magnitudes, applied to a whole batch.

A sub-policy of Molchanov et al. 2020 is fixed for a pass over a data set; directions of shears,
translations and rotations, places of black squares and crops are drawn per image. The sign of a
magnitude is part of the sub-policy (`fix_sign` in the paper's code).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from adaptive_nets.data.augmentations import colour_operations, crops, geometry
from adaptive_nets.data.augmentations.colour_operations import Images, Values
from adaptive_nets.data.augmentations.geometry import Outside
from adaptive_nets.data.augmentations.operations import (
    CIFAR_OPERATIONS,
    IMAGENET_OPERATIONS,
    OPERATIONS,
    SMALLEST_MAGNITUDE,
    Protocol,
    operation_index,
    operation_value,
)

_RESIZED_CROP = operation_index("RandomResizedCrop")


class RandomParts(NamedTuple):
    """Random parts of an operation, drawn per image.

    Attributes:
        direction: float32[N], 1 or -1 with equal probability, of shear, translation and rotation.
        far: bool[N], whether a shear keeps the bottom or right border in place.
        centres: float32[N, 2], row and column of the centres of black squares.
        crop_key: PRNG key of the resized crop.
    """

    direction: Values
    far: Bool[Array, "N"]
    centres: Float[Array, "N 2"]
    crop_key: PRNGKeyArray


def draw_parts(key: PRNGKeyArray, images: Images) -> RandomParts:
    """Draws the random parts of an operation."""
    direction_key, far_key, centre_key, crop_key = jax.random.split(key, 4)
    n = images.shape[0]
    return RandomParts(
        direction=jnp.where(jax.random.bernoulli(direction_key, 0.5, (n,)), 1.0, -1.0),
        far=jax.random.bernoulli(far_key, 0.5, (n,)),
        centres=crops.cutout_centres(centre_key, images),
        crop_key=crop_key,
    )


def outside_of(protocol: Protocol) -> Outside:
    """Returns the treatment of places outside of an image under a protocol."""
    return "reflect" if protocol == "cifar" else "black"


def transform(
    name: str, images: Images, value: Values, parts: RandomParts, *, outside: Outside
) -> Images:
    """Applies one operation with one value per image.

    Args:
        name: name of the operation.
        images: float32[N, H, W, 3].
        value: float32[N], from `operation_value`.
        parts: random parts, one per image.
        outside: treatment of places outside of an image.

    Returns:
        float32[N, H, W, 3].
    """
    height, width = images.shape[1:3]
    signed = value * parts.direction
    actions: dict[str, Callable[[], Images]] = {
        "Identity": lambda: images,
        "ShearX": lambda: geometry.shear_x(images, signed, parts.far, outside=outside),
        "ShearY": lambda: geometry.shear_y(images, signed, parts.far, outside=outside),
        "TranslateX": lambda: geometry.translate_x(images, signed * width, outside=outside),
        "TranslateY": lambda: geometry.translate_y(images, signed * height, outside=outside),
        "Rotate": lambda: geometry.rotate(images, signed, outside=outside),
        "AutoContrast": lambda: colour_operations.auto_contrast(images, value),
        "Solarize": lambda: colour_operations.solarize(images, value),
        "SolarizeAdd": lambda: colour_operations.solarize_add(images, value),
        "Posterize": lambda: colour_operations.posterize(images, value),
        "Contrast": lambda: colour_operations.contrast(images, value),
        "Color": lambda: colour_operations.color(images, value),
        "Brightness": lambda: colour_operations.brightness(images, value),
        "Sharpness": lambda: colour_operations.sharpness(images, value),
        "Cutout": lambda: crops.cutout(images, value, parts.centres),
        "RandomResizedCrop": lambda: crops.random_resized_crop(parts.crop_key, images, value),
        "Invert": lambda: colour_operations.invert(images),
        "Equalize": lambda: colour_operations.equalize(images),
    }
    return actions[name]()


def apply_operation(
    key: PRNGKeyArray,
    images: Float[ArrayLike, "N H W 3"],
    index: Int[ArrayLike, ""],
    magnitude: Float[ArrayLike, ""],
    *,
    protocol: Protocol,
) -> Images:
    """Applies one operation to all images, with random parts per image.

    One compiled program serves every index and magnitude; only the chosen operation runs.

    Args:
        key: PRNG key.
        images: float32[N, H, W, 3], integral values in [0, 255].
        index: int[], index of the operation in `OPERATIONS`; may be traced.
        magnitude: float[], magnitude m; may be traced.
        protocol: under ``"cifar"``, an operation with |m| < 0.5 is skipped.

    Returns:
        float32[N, H, W, 3], integral values in [0, 255].

    Example:
        >>> images = jnp.full((2, 8, 8, 3), 100.0)
        >>> index = operation_index("Solarize")
        >>> solarized = apply_operation(
        ...     jax.random.key(0), images, index, 45.0, protocol="cifar"
        ... )
        >>> int(solarized[0, 0, 0, 0])
        155

    Raises:
        ValueError: the images are not colour images, or an index that is not traced is unknown.
    """
    _check(images, index)
    index, magnitude = jnp.asarray(index, jnp.int32), jnp.asarray(magnitude, jnp.float32)
    return _apply_operation(key, jnp.asarray(images, jnp.float32), index, magnitude, protocol)


def apply_sub_policy(
    key: PRNGKeyArray,
    images: Float[ArrayLike, "N H W 3"],
    indices: Int[ArrayLike, "n"],
    magnitudes: Float[ArrayLike, "n"],
    *,
    protocol: Protocol,
    crop: bool = True,
) -> Images:
    """Applies the operations of a sub-policy in order, then CIFAR's random crop and flip.

    One compiled program serves all sub-policies of the same number of operations.

    Args:
        key: PRNG key.
        images: float32[N, H, W, 3], integral values in [0, 255].
        indices: int[n], indices into `OPERATIONS`; n may be 0.
        magnitudes: float[n].
        protocol: conventions of the data set.
        crop: whether the protocol ``"cifar"`` ends with `crop_and_flip`. Without it, a sub-policy
            of no operations returns the images.

    Returns:
        float32[N, H, W, 3], integral values in [0, 255].

    Raises:
        ValueError: the images are not colour images, or an index that is not traced is unknown.
    """
    _check(images, indices)
    indices, magnitudes = jnp.asarray(indices, jnp.int32), jnp.asarray(magnitudes, jnp.float32)
    images = jnp.asarray(images, jnp.float32)
    return _apply_sub_policy(key, images, indices, magnitudes, protocol, crop)


def random_sub_policies(
    rng: np.random.Generator,
    count: int,
    *,
    operations: int,
    magnitude: float,
    protocol: Protocol,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws sub-policies for the pool of greedy policy search.

    Operations are uniform with replacement, Identity included; magnitudes are uniform in [-M, M].
    Under ``"imagenet"`` a random resized crop comes first and is never drawn again.

    Args:
        rng: NumPy's generator.
        count: number of sub-policies.
        operations: operations N of each sub-policy, without the resized crop.
        magnitude: largest absolute magnitude M.
        protocol: conventions of the data set.

    Returns:
        (indices, magnitudes): int32[count, N] and float32[count, N], or [count, N + 1] under
        ``"imagenet"``.
    """
    choices = np.arange(len(CIFAR_OPERATIONS))
    if protocol == "imagenet":
        choices = np.delete(np.arange(len(IMAGENET_OPERATIONS)), _RESIZED_CROP)
    indices = rng.choice(choices, (count, operations))
    if protocol == "imagenet":
        first = np.full((count, 1), _RESIZED_CROP)
        indices = np.concatenate([first, indices], axis=1)
    magnitudes = rng.uniform(-magnitude, magnitude, indices.shape)
    return indices.astype(np.int32), magnitudes.astype(np.float32)


@functools.partial(jax.jit, static_argnames="protocol")
def _apply_operation(
    key: PRNGKeyArray, images: Images, index: Array, magnitude: Array, protocol: Protocol
) -> Images:
    parts = draw_parts(key, images)
    outside = outside_of(protocol)
    if protocol == "cifar":
        index = jnp.where(jnp.abs(magnitude) < SMALLEST_MAGNITUDE, 0, index)

    def branch(operation):
        def run(images, parts):
            value = jnp.broadcast_to(operation_value(operation, magnitude), images.shape[:1])
            return transform(operation.name, images, value, parts, outside=outside)

        return run

    return lax.switch(index, [branch(operation) for operation in OPERATIONS], images, parts)


@functools.partial(jax.jit, static_argnames=("protocol", "crop"))
def _apply_sub_policy(
    key: PRNGKeyArray,
    images: Images,
    indices: Array,
    magnitudes: Array,
    protocol: Protocol,
    crop: bool,
) -> Images:
    operation_key, crop_key = jax.random.split(key)

    def step(images, operation):
        key, index, magnitude = operation
        return _apply_operation(key, images, index, magnitude, protocol), None

    if indices.shape[0]:
        keys = jax.random.split(operation_key, indices.shape[0])
        images, _ = lax.scan(step, images, (keys, indices, magnitudes))
    if crop and protocol == "cifar":
        images = crops.crop_and_flip(crop_key, images)
    return images


def _check(images: ArrayLike, indices: ArrayLike) -> None:
    """Refuses images of other shapes and, where the values are known, unknown indices."""
    shape = jnp.shape(images)
    if len(shape) != 4 or shape[-1] != 3:
        raise ValueError(f"images have shape {shape}; expected [N, H, W, 3]")
    if isinstance(indices, Tracer):
        return
    known = np.asarray(indices)
    if known.size and (known.min() < 0 or known.max() >= len(OPERATIONS)):
        raise ValueError(f"index is {known.tolist()}; expected 0 to {len(OPERATIONS) - 1}")
