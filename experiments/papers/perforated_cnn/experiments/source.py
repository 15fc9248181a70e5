"""Trained network to perforate, and its normalised images."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.device import (
    DeviceSplit,
    PixelScaling,
    normalise,
    put_on_devices,
    standardise_each,
)
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights.stored import check_fits
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import ModelConfig
from experiments.shared.digests import array_digest
from experiments.shared.normalisation import (
    check_channels,
    check_normalisation,
    normalised_as,
)
from experiments.suite.run_inputs import (
    RunInput,
    RunInputField,
    load_network,
    load_variables,
    resolve,
    training_of,
)

SOURCE = RunInputField("required", random=True)
_FLAG = "--perforation.source"
# Experiments that train a network to perforate.
_MAKERS = {"nin_cifar10": "perforated_cnn.table1.nin"}


@dataclasses.dataclass(frozen=True)
class Source:
    """Network to perforate, with its data.

    Attributes:
        model: The network.
        variables: NumPy arrays.
        digest: Sixteen hexadecimal digits of the variables.
        data: Settings of the images, normalised as the network expects them.
        train: Training set on the device.
        test: Test set on the device.
    """

    model: nn.Module
    variables: Any
    digest: str
    data: Any
    train: DeviceSplit
    test: DeviceSplit

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def training_images(self, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns a random subset of the training set, normalised; it depends on `seed` alone.

        Args:
            count: Number of images; all if the set is smaller.
            seed: Seed of the subset.

        Returns:
            float32[count, H, W, C] and int32[count].
        """
        count = min(count, self.train.size)
        chosen = np.sort(np.random.default_rng(seed).permutation(self.train.size)[:count])
        return _normalised_images(self.train, chosen)

    def test_images(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the whole test set, normalised."""
        return _normalised_images(self.test, np.arange(self.test.size))


def _normalised_images(data: DeviceSplit, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images = normalise(data, jnp.asarray(np.asarray(data.images)[chosen]))
    images = standardise_each(images) if data.per_image else images
    return np.asarray(images), np.asarray(data.labels)[chosen]


def load_source(
    data: Any, model_config: ModelConfig, where: str, dataset: Dataset, *, seed: int
) -> Source:
    """Loads a trained network and its images.

    Args:
        data: Settings of the images, with their normalisation.
        model_config: Configuration of the network.
        where: folder of a run or of a seed, file of weights; "random" for an initialised network.
        dataset: Data set that it was trained on.
        seed: Seed of the run, or of random weights.

    Raises:
        UserError: There is no such run, or its network or normalisation differs.
    """
    name = model_config.name
    if not where:
        maker = f" (adaptive-nets run {_MAKERS[name]} makes one)" if name in _MAKERS else ""
        raise UserError(
            f"{_FLAG} is ''; expected the folder of a run that trained {name!r}{maker}, a weights "
            "file, or 'random' to try the command"
        )
    check_channels(name, dataset)
    found = resolve(where, SOURCE, flag="perforation.source", seed=seed)
    normalisation = _normalisation_of(found, name)
    data = normalised_as(data, normalisation, flag=_FLAG)
    # Search and timing use a single device.
    train, test = put_on_devices(
        dataset, data, lambda split: jax.device_put(split, jax.devices()[0])
    )
    model = create_model(name, num_classes=dataset.num_classes, dtype=jnp.dtype(model_config.dtype))
    example = jax.ShapeDtypeStruct((1, *train.images.shape[1:]), jnp.float32)

    def init(key):
        return model.init(key, jnp.zeros(example.shape), train=False)

    if found.kind == "random":
        variables = jax.device_get(jax.jit(init)(jax.random.key(seed)))
    else:
        variables = load_variables(found, name)
        expected = jax.eval_shape(init, jax.random.key(0))
        check_fits(variables, expected, source=f"{_FLAG} {where}")
        if found.kind == "checkpoint":
            _check_scaling(training_of(found), data, where)
        elif found.kind != "weights":
            assert normalisation is not None
            check_normalisation(normalisation, train, source=f"{_FLAG} {where}")
    return Source(model, variables, array_digest(variables), data, train, test)


def _normalisation_of(found: RunInput, name: str) -> InputNormalisation | None:
    """Returns the normalisation of the network's inputs; None for a checkpoint."""
    if found.kind == "checkpoint":
        return None
    if found.kind == "random":
        return model_entry(name).normalisation.to_input_normalisation()
    return load_network(found, name).normalisation


def _check_scaling(theirs: dict[str, Any], ours: PixelScaling, where: str) -> None:
    """Checks that a checkpoint was trained on images normalised as ours are."""
    names = ("pixel_scale", "centre", "standardise", "per_image")
    for name in names:
        there = theirs.get(f"data.{name}", getattr(ours, name))
        if there != getattr(ours, name):
            raise UserError(
                f"--perforation.source {where} was trained with --data.{name.replace('_', '-')} "
                f"{there!r}; expected {getattr(ours, name)!r}"
            )
