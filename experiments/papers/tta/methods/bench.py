"""Network and data of one seed of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from adaptive_nets.data.device import (
    Augment,
    Augmentation,
    DeviceSplit,
    Rows,
    normalise,
    put_on_devices,
)
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.ensembling.posterior import (
    DropoutNetwork,
    Training,
    Variables,
    member_predictors,
)
from adaptive_nets.ensembling.test_time import predict_view
from adaptive_nets.ensembling.views import unchanged_views
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import DataConfig, require
from adaptive_nets.training.duration import Timing
from experiments.papers.tta.methods.configs import LaplaceMethodConfig, MethodConfig
from experiments.shared.ensembling.network import evaluation_split, training_split
from experiments.shared.normalisation import check_channels


@dataclasses.dataclass(frozen=True)
class Bench:
    """Network and data of one seed.

    Attributes:
        config: configuration of the method.
        module: plain network.
        overrides: options with which `create_model` makes it.
        data: training set on the device, without held-out images.
        held_out: images on which a setting of the method is chosen; None if it has none.
        test: test set.
        num_classes: number of classes.
        normalisation: normalisation of the inputs.
        key: PRNG key of the seed.
        seed: the seed.
        directory: folder of the seed.
        progress: shows the rate and the remaining time.
        title: title of the run.
    """

    config: MethodConfig
    module: nn.Module
    overrides: dict[str, Any]
    data: DeviceSplit
    held_out: Split | None
    test: Split
    num_classes: int
    normalisation: InputNormalisation
    key: Any
    seed: int
    directory: Path
    progress: ProgressReporter
    title: str

    @property
    def network(self) -> Any:
        """Network of training and of members: with dropout, if the method has it."""
        rate = self.config.network.dropout_rate
        return DropoutNetwork(self.module, rate=rate) if rate else self.module

    @property
    def timing(self) -> Timing:
        """Length of the training of one network, or of a cosine cycle."""
        return self.timing_of(self.config.schedule.length)

    def timing_of(self, length: str) -> Timing:
        """Returns the steps of a length."""
        timing = Timing.of(length, batch_size=self.config.data.batch_size, examples=self.data.size)
        return dataclasses.replace(timing, total_steps=max(timing.total_steps, 1))

    def training(self, optimiser: Any, **options: Any) -> Training:
        """Builds a training of the network.

        Args:
            optimiser: optimiser with its schedule.
            **options: ``network`` in place of that of the method, and ``objective``.
        """
        network = options.pop("network", self.network)
        return Training(
            classification_task(network, **options),
            self.data,
            optimiser,
            batch_size=self.config.data.batch_size,
            augmentation=black_crops(self.data, self.config.views.padding),
        )

    def file(self, name: str) -> Path:
        """Returns the file of the state of a training."""
        return self.directory / "training" / f"{name}.npz"

    def key_of(self, purpose: int) -> Any:
        """Returns the key of a purpose."""
        return jax.random.fold_in(self.key, purpose)

    def inputs(self, count: int) -> Iterator[jax.Array]:
        """Yields inputs of the network, batches of the first training images.

        Args:
            count: number of images, at least one batch; 0 for all. Incomplete batches are left out.
        """
        size = min(self.config.data.batch_size, self.data.size)
        limit = min(max(count, size) if count else self.data.size, self.data.size)
        for start in range(0, limit - size + 1, size):
            yield normalise(self.data, self.data.images[start : start + size])

    def predict(self, variables: Variables, images: np.ndarray) -> np.ndarray:
        """Predicts images without augmentation, float32[N, K], log-probabilities."""
        predictor = member_predictors(self.network, self.normalisation)(variables)
        size = self.config.data.eval_batch_size
        return predict_view(predictor, images, unchanged_views, 0, batch_size=size)


def black_crops(data: DeviceSplit, padding: int) -> Augment:
    """Returns the augmentation of `crop_views` for normalised images: black padding, crop, flip.

    Args:
        data: training set, for the normalisation of its images.
        padding: black pixels on each side.
    """
    black = -(data.offset * data.scale)[None]
    crops = Augmentation(padding, flip=True)

    def augment(key: PRNGKeyArray, rows: Rows) -> Rows:
        # Without the offset, black is 0, the value that crops are padded with.
        pixels = crops(key, {**rows, "image": rows["image"] - black})
        return {**pixels, "image": pixels["image"] + black}

    return augment


def set_up(
    config: MethodConfig,
    dataset: Dataset,
    *,
    theirs: InputNormalisation | None,
    seed: int,
    directory: Path,
    progress: ProgressReporter,
    title: str,
) -> Bench:
    """Makes the network and places the training set on the device.

    Args:
        config: configuration of the method.
        dataset: data set in memory.
        theirs: normalisation of the network that the run starts from; None for the statistics of
            the training images.
        seed: seed of the run.
        directory: folder of the seed.
        progress: shows the rate and the remaining time.
        title: title of the run.

    Raises:
        UserError: the data set is streamed or too small, or the network is of fixed depth or of
            other images.
    """
    name = config.model.name
    check_channels(name, dataset)
    require(
        "depth" in model_entry(name).overrides, "model.name", name,
        "a network whose depth can be chosen, such as resnet20_cifar10",
    )  # fmt: skip
    overrides = {"depth": config.network.depth}
    module = create_model(
        name, num_classes=dataset.num_classes, dtype=jnp.dtype(config.model.dtype), **overrides
    )
    train, test, held_out = training_split(dataset), evaluation_split(dataset), None
    if isinstance(config, LaplaceMethodConfig):
        count, size = config.laplace.held_out, config.data.batch_size
        require(
            count + size <= len(train), "laplace.held-out", count,
            f"at most {len(train) - size}, all training images but a batch",
        )  # fmt: skip
        held_out = train.replace(**{n: a[-count:] for n, a in train.arrays.items()})
        train = train.first(len(train) - count)
    scaling = DataConfig(name=dataset.name, centre="channel", standardise=True)
    data, _ = put_on_devices(
        dataclasses.replace(dataset, train=train), scaling, lambda split: jax.device_put(split)
    )
    if theirs is not None:
        if theirs.per_image:
            raise UserError(
                f"--weights is {config.weights!r}, a network of images that are standardised one "
                "by one; expected a normalisation of the data set"
            )
        data = dataclasses.replace(
            data, offset=jnp.asarray(theirs.offset), scale=jnp.asarray(theirs.scale),
            pixel_scale=jnp.float32(theirs.pixel_scale),
        )  # fmt: skip
    offset, scale, pixel_scale = jax.device_get((data.offset, data.scale, data.pixel_scale))
    return Bench(
        config, module, overrides, data, held_out, test, dataset.num_classes,
        InputNormalisation(float(pixel_scale), offset, scale), jax.random.key(seed), seed,
        directory, progress, title,
    )  # fmt: skip
