"""Random views of images: functions from pixels to pixels, one program for all views."""

from __future__ import annotations

import functools
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.data.augmentations import apply_sub_policy, crop_and_flip
from adaptive_nets.ensembling.arguments import as_count
from adaptive_nets.ensembling.policies import Policy
from adaptive_nets.models import logits_of
from adaptive_nets.models.normalisation import InputNormalisation

Images = Float[Array, "N H W C"]


class Views(Protocol):
    """Random views of images, by number."""

    def __call__(self, key: PRNGKeyArray, images: Images, number: int) -> Images:
        """Returns view `number` of images in [0, 255]; random parts differ between images."""
        ...


class ImageFn(Protocol):
    """Function of images that returns an array of one row for each."""

    def __call__(self, images: Images) -> Float[Array, "N D"]:
        """Returns float[N, D] of float32 images in [0, 255]."""
        ...


class Predictor(Protocol):
    """Network as a function: pixels -> normalised log-probabilities."""

    def __call__(self, images: Images) -> Float[Array, "N K"]:
        """Returns log-probabilities, nats, of float32 images in [0, 255]."""
        ...


def unchanged_views(key: PRNGKeyArray, images: Images, number: int) -> Images:
    """Returns the images themselves, the central crop of CIFAR."""
    del key, number
    return images


@functools.partial(jax.jit, static_argnames=("protocol",))
def _apply(key, images, indices, magnitudes, crop, *, protocol):
    """Returns views of a sub-policy; one program for all policies of a length."""
    key, of_crop = jax.random.split(key)
    images = apply_sub_policy(key, images, indices, magnitudes, protocol=protocol, crop=False)
    return lax.cond(crop, lambda x: crop_and_flip(of_crop, x), lambda x: x, images)


def crop_views(padding: int = 4):
    """Returns views of random crops and flips: `Views`.

    Args:
        padding: black pixels on each side before the crop of the original size.
    """
    padding = as_count("padding", padding, at_least=0)
    apply = jax.jit(lambda key, images: crop_and_flip(key, images, padding=padding))

    def views(key: PRNGKeyArray, images: Images, number: int) -> Images:
        del number
        return apply(key, images)

    return views


def policy_views(policy: Policy):
    """Returns views of a policy: view i is of sub-policy i, and they begin again after the last.

    One program is compiled for every batch shape and number of operations.
    """
    arrays = policy.arrays()

    def views(key: PRNGKeyArray, images: Images, number: int) -> Images:
        i = number % len(policy)
        return _apply(
            key, images, arrays.indices[i], arrays.magnitudes[i], arrays.crop[i],
            protocol=policy.protocol,
        )  # fmt: skip

    return views


def make_predictor(module: Any, variables: Any, normalisation: InputNormalisation):
    """Returns a network of the zoo, or any linen module, as a `Predictor`.

    Args:
        module: called with ``train=False``; its output has logits.
        variables: its variables.
        normalisation: normalisation of its inputs.
    """

    @jax.jit
    def apply(variables, images):
        inputs = normalised(images, normalisation)
        logits = logits_of(module.apply(variables, inputs, train=False))
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    variables = jax.device_put(variables)
    return lambda images: apply(variables, images)


def normalised(images: Images, normalisation: InputNormalisation) -> Images:
    """Computes a network's input from float32 images in [0, 255]; traceable."""
    offset = jnp.asarray(normalisation.offset, jnp.float32)
    scale = jnp.asarray(normalisation.scale, jnp.float32)
    inputs = (images / np.float32(normalisation.pixel_scale) - offset[None]) * scale[None]
    if normalisation.per_image:
        axes = (1, 2, 3)
        mean = jnp.mean(inputs, axis=axes, keepdims=True)
        deviation = jnp.std(inputs, axis=axes, keepdims=True)
        inputs = (inputs - mean) / jnp.maximum(deviation, inputs[0].size ** -0.5)
    return inputs
