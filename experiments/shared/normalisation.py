"""Normalisation of images for a run that starts from a trained network."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import model_entry
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from experiments.shared.trained_weights import SOURCE


def normalised_as[Data: Any](data: Data, theirs: InputNormalisation | None, *, flag: str) -> Data:
    """Returns the settings of images, with a normalisation in place of "source".

    Args:
        data: settings of images; other values than "source" stay as they are.
        theirs: normalisation of the network; None if it is not known.
        flag: flag that names the network, for messages.

    Raises:
        UserError: the normalisation is not known.
    """
    if data.centre != SOURCE:
        return data
    if theirs is None:
        raise UserError(
            f"--data.centre is {SOURCE!r}, but {flag} names a checkpoint, which does not store the "
            "normalisation of its inputs; expected none, channel, pixel or middle"
        )
    changes: dict[str, Any] = {"pixel_scale": theirs.pixel_scale, "per_image": theirs.per_image}
    if theirs.offset.shape[:2] != (1, 1):
        # A mean image is computed again from the training set, and compared by the caller.
        changes |= {"centre": "pixel", "standardise": bool(np.any(theirs.scale != 1))}
        return dataclasses.replace(data, **changes)
    unit = 255.0 / theirs.pixel_scale
    mean = theirs.offset.astype(np.float64).ravel() / unit
    std = 1 / (unit * theirs.scale.astype(np.float64).ravel())
    changes |= {"centre": "channel", "mean": tuple(map(float, mean)), "std": tuple(map(float, std))}
    return dataclasses.replace(data, **changes)


def check_channels(model: str, dataset: Dataset) -> None:
    """Checks that a network takes the images of a data set.

    Args:
        model: name of the network.
        dataset: data set in memory or on disk.

    Raises:
        UserError: the data set has no images, or images with another number of channels.
    """
    if dataset.streams:
        channels = dataset.streams["test"].image_shape[2]
    else:
        assert dataset.test is not None
        if "image" not in dataset.test.arrays:
            raise UserError(f"--data.name is {dataset.name!r}; expected a data set of images")
        channels = dataset.test.images.shape[3]
    wanted = model_entry(model).input_shape[2]
    if wanted != channels:
        raise UserError(
            f"--model.name is {model!r}, a network of images with {wanted} channels; expected one "
            f"for {channels}, the channels of --data.name {dataset.name}"
        )


def check_normalisation(theirs: InputNormalisation, data: DeviceSplit, *, source: str) -> None:
    """Checks that images are normalised as in the training of a network.

    Args:
        theirs: normalisation of the network's training.
        data: images of this run.
        source: flag and value that name the network, for the message.

    Raises:
        UserError: the normalisations differ.
    """
    ours = jax.device_get((data.pixel_scale, data.offset, data.scale))
    same = all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=1e-5, atol=1e-6)
        for a, b in zip(ours, (theirs.pixel_scale, theirs.offset, theirs.scale), strict=True)
    )
    if not same or bool(theirs.per_image) != bool(data.per_image):
        raise UserError(
            f"{source} was trained with another normalisation of the images; expected the same "
            "training set, --data.centre, --data.standardise, --data.pixel-scale and "
            "--data.per-image, or --data.centre source"
        )
