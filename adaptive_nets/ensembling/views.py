"""Random views of images: functions from pixels to pixels, one program for all views."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.data.augmentations import apply_sub_policy, crop_and_flip
from adaptive_nets.data.device import standardise_each
from adaptive_nets.ensembling.pieces import in_pieces
from adaptive_nets.ensembling.policies import Policy
from adaptive_nets.models import logits_of
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.arguments import as_integer

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
    padding = as_integer("padding", padding, at_least=0)
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


def make_predictor(module: Any, variables: Any, normalisation: InputNormalisation) -> Predictor:
    """Returns a network of the zoo, or any linen module, as a `Predictor`.

    Args:
        module: called with ``train=False``; its output has logits.
        variables: its variables.
        normalisation: normalisation of its inputs.
    """
    return member_predictors(module, normalisation)(variables)


def member_predictors(module: Any, normalisation: InputNormalisation) -> Callable[[Any], Predictor]:
    """Builds a function (variables of a member) -> `Predictor`; all members share one program.

    Args:
        module: network or wrapper with the `apply` of a linen module, called with ``train=False``.
        normalisation: normalisation of its inputs.
    """

    @jax.jit
    def apply(variables, images):
        def predict(pixels):
            inputs = normalised(pixels, normalisation)
            logits = logits_of(module.apply(variables, inputs, train=False))
            return jax.nn.log_softmax(logits.astype(jnp.float32))

        return in_pieces(predict, images)

    def predictor(variables: Any) -> Predictor:
        placed = jax.device_put(variables)
        return lambda images: apply(placed, images)

    return predictor


def normalised(images: Images, normalisation: InputNormalisation) -> Images:
    """Computes a network's input from float32 images in [0, 255]; traceable."""
    offset = jnp.asarray(normalisation.offset, jnp.float32)
    scale = jnp.asarray(normalisation.scale, jnp.float32)
    inputs = (images / np.float32(normalisation.pixel_scale) - offset[None]) * scale[None]
    return standardise_each(inputs) if normalisation.per_image else inputs
