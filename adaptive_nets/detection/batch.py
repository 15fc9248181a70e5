"""Checks of a batch of images with boxes."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from adaptive_nets.runtime.errors import UserError

_IMAGE_ARRAYS = ("image", "size")
_TRUTH_ARRAYS = ("boxes", "labels", "crowd")


def checked(batch: Mapping[str, Array], *, train: bool, num_classes: int) -> dict[str, Array]:
    """Returns the arrays of a batch that a detector reads, with their shapes checked.

    Args:
        batch: ``image`` uint8 or float[N, H, W, 3], ``size`` int[N, 2]; in training also ``boxes``
            float[N, G, 4], ``labels`` int[N, G] and ``crowd`` bool[N, G].
        train: whether the batch must have true boxes.
        num_classes: number of classes C.

    Raises:
        UserError: an array is missing or has another shape or dtype, or, unless the arrays are
            traced, an image is larger than its padded form or a label is no class; the message
            names the array.
    """
    names = (*_IMAGE_ARRAYS, *_TRUTH_ARRAYS) if train else _IMAGE_ARRAYS
    missing = [name for name in names if name not in batch]
    if missing:
        raise UserError(
            f"batch has {', '.join(sorted(batch)) or 'no arrays'}; expected {missing[0]!r} too, as "
            f"a detector reads {', '.join(names)}{' in training' if train else ''}"
        )
    arrays = {name: jnp.asarray(batch[name]) for name in names}
    images = arrays["image"]
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"image has shape {images.shape}; expected [N, H, W, 3]")
    if images.dtype != jnp.uint8 and not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(f"image has dtype {images.dtype}; expected uint8, or normalised floats")
    count = images.shape[0]
    expected: dict[str, tuple[int, ...]] = {"size": (count, 2)}
    if train:
        boxes = arrays["boxes"]
        slots = boxes.shape[1] if boxes.ndim == 3 else 0
        expected |= {"boxes": (count, slots, 4), "labels": (count, slots), "crowd": (count, slots)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise UserError(f"{name} has shape {arrays[name].shape}; expected {shape}")
    for name in {"size", "labels"} & arrays.keys():
        if not jnp.issubdtype(arrays[name].dtype, jnp.integer):
            raise UserError(f"{name} has dtype {arrays[name].dtype}; expected integers")
    _check_range("size", batch["size"], at_least=0, at_most=max(images.shape[1:3]))
    if train:
        _check_range("labels", batch["labels"], at_least=-1, at_most=num_classes - 1)
        arrays["crowd"] = arrays["crowd"].astype(jnp.bool_)
        arrays["boxes"] = arrays["boxes"].astype(jnp.float32)
    return arrays


def _check_range(name: str, values: Array, *, at_least: int, at_most: int) -> None:
    """Raises a `UserError` if a value that is not traced lies outside of a range."""
    if isinstance(values, Tracer):
        return
    found = np.asarray(values)
    outside = found[(found < at_least) | (found > at_most)]
    if outside.size:
        raise UserError(
            f"{name} holds {int(outside[0])}; expected numbers from {at_least} to {at_most}"
        )
