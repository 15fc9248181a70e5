"""Training policy of Molchanov et al. 2020: random operations per image, then crop and flip."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from adaptive_nets.data.augmentations import crops, geometry
from adaptive_nets.data.augmentations.colour_operations import Images, Values, per_image
from adaptive_nets.data.augmentations.geometry import Matrices
from adaptive_nets.data.augmentations.operations import (
    CIFAR_OPERATIONS,
    operation_index,
    operation_value,
)
from adaptive_nets.data.augmentations.sub_policy import RandomParts, draw_parts, transform

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


@dataclasses.dataclass(frozen=True)
class RandomAugment:
    """RandAugment as in the code of Molchanov et al. 2020, for training on CIFAR.

    Each image undergoes `operations` random operations, uniform with replacement among
    `CIFAR_OPERATIONS`, whose magnitudes are uniform in [-`magnitude`, `magnitude`], then
    `crop_and_flip`. As in that code, small magnitudes are not skipped in training. Its random
    signs are left out, since magnitudes are symmetric.

    Attributes:
        operations: number of operations N per image.
        magnitude: largest absolute magnitude M.
        crop: whether images are cropped and flipped at the end.
    """

    operations: int = 3
    magnitude: float = 45.0
    crop: bool = True

    def __call__(self, key: PRNGKeyArray, images: Images) -> Images:
        """Augments each image independently.

        Args:
            key: PRNG key.
            images: float32[N, H, W, 3], integral values in [0, 255].

        Returns:
            float32[N, H, W, 3], integral values in [0, 255].
        """
        index_key, magnitude_key, operation_key, crop_key = jax.random.split(key, 4)
        shape = (images.shape[0], self.operations)
        indices = jax.random.randint(index_key, shape, 0, len(CIFAR_OPERATIONS))
        magnitudes = jax.random.uniform(
            magnitude_key, shape, minval=-self.magnitude, maxval=self.magnitude
        )
        images = apply_per_image(operation_key, images, indices, magnitudes)
        return crops.crop_and_flip(crop_key, images) if self.crop else images


@jax.jit
def apply_per_image(
    key: PRNGKeyArray,
    images: Images,
    indices: Int[Array, "N n"],
    magnitudes: Float[Array, "N n"],
) -> Images:
    """Applies a sub-policy of its own to each image; skips no small magnitudes.

    All shears, translations and rotations share one bicubic resampling. Every other operation runs
    on all images, and one is selected for each.

    Args:
        key: PRNG key.
        images: float32[N, H, W, 3], integral values in [0, 255].
        indices: int[N, n], indices into `CIFAR_OPERATIONS`.
        magnitudes: float[N, n].

    Returns:
        float32[N, H, W, 3], integral values in [0, 255].
    """

    def step(images, operation):
        key, index, magnitude = operation
        return _apply_one_each(key, images, index, magnitude), None

    if indices.shape[1]:
        keys = jax.random.split(key, indices.shape[1])
        magnitudes = magnitudes.astype(jnp.float32)
        images, _ = lax.scan(step, images, (keys, indices.T, magnitudes.T))
    return images


def _apply_one_each(
    key: PRNGKeyArray, images: Images, index: Int[Array, "N"], magnitude: Values
) -> Images:
    parts = draw_parts(key, images)
    geometric = _is_any(index, _GEOMETRIC)
    changed = geometry.affine(
        images, _affine_maps(index, magnitude, parts, *images.shape[1:3]), outside="reflect"
    )
    result = jnp.where(per_image(geometric), changed, images)
    for i, operation in enumerate(CIFAR_OPERATIONS):
        if operation.name in ("Identity", *_GEOMETRIC):
            continue
        value = operation_value(operation, magnitude)
        changed = transform(operation.name, images, value, parts, outside="reflect")
        result = jnp.where(per_image(index == i), changed, result)
    return result


def _affine_maps(
    index: Int[Array, "N"], magnitude: Values, parts: RandomParts, height: int, width: int
) -> Matrices:
    """Affine map of each image's operation; the identity where it is not geometric."""

    def signed(name: str) -> Values:
        return operation_value(CIFAR_OPERATIONS[operation_index(name)], magnitude) * parts.direction

    shear = functools.partial(geometry.shear_matrices, height=height, width=width)
    maps = {
        "ShearX": shear(signed("ShearX"), parts.far, axis="x"),
        "ShearY": shear(signed("ShearY"), parts.far, axis="y"),
        "TranslateX": geometry.translation_matrices(signed("TranslateX") * width, axis="x"),
        "TranslateY": geometry.translation_matrices(signed("TranslateY") * height, axis="y"),
        "Rotate": geometry.rotation_matrices(signed("Rotate"), height, width),
    }
    result = geometry.translation_matrices(jnp.zeros_like(magnitude), axis="x")
    for name, matrices in maps.items():
        chosen = (index == operation_index(name))[:, None, None]
        result = jnp.where(chosen, matrices, result)
    return result


def _is_any(index: Int[Array, "N"], names: tuple[str, ...]) -> Array:
    return jnp.isin(index, jnp.array([operation_index(name) for name in names]))
