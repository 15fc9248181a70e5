"""Shared parts of the presets."""

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
from experiments.suite import config as config_lib

SPARSE_RUN = RunConfig(log_every="1%", eval_every="10%", checkpoint_every="10%")
SHORT_RUN = RunConfig(log_every="5%", eval_every="50%", checkpoint_every="50%")
SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")
# A few images and narrow layers.
SMOKE_DATA = {"train_limit": 60, "test_limit": 40, "batch_size": 20, "eval_batch_size": 40}
WIDTHS = {"mnist": (32, 128), "cifar10": (128, 256, 256), "shapes": (20,)}
"""Target -> channels of its network in the paper."""
SMOKE_WIDTHS = {"mnist": (2, 3), "cifar10": (2, 2, 2), "shapes": (2,)}
MODELS = {"mnist": "fconv_mnist", "cifar10": "cifarnet", "shapes": "shapes_net"}
SETS = {"mnist": "mnist", "cifar10": "cifar10", "shapes": "four_shapes"}
"""Target -> data set."""
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10", "shapes": "four shapes"}

CHOSEN_BY_US = "The publication does not state {what}; ours {is_are} {values}."
SEPARATE = (
    "Every run with a learnt prior takes a run of its own priors (--prior.source or "
    "--kernels.source); the authors' priors are not converted."
)


def training(target: str, length: str, batch_size: int, *, data: str = "") -> TrainConfig:
    """Returns a training with Adam at 1e-3, linear to 0; pixels in [0, 1].

    Args:
        target: "mnist", "cifar10" or "shapes".
        length: length of training.
        batch_size: images per step.
        data: data set; that of the target if empty.
    """
    return TrainConfig(
        data=DataConfig(
            name=data or SETS[target], batch_size=batch_size, eval_batch_size=500, centre="none"
        ),
        model=ModelConfig(name=MODELS[target]),
        optimiser=OptimiserConfig(learning_rate=1e-3),
        schedule=ScheduleConfig(length=length),
        run=SPARSE_RUN,
    )


def changed(config: Any, length: str, run: RunConfig | None = None, **groups: Any) -> Any:
    """Returns the configuration with another length, and other values of its groups."""
    changes = {
        name: dataclasses.replace(config_lib.group(config, name), **values)
        for name, values in {"schedule": {}, **groups}.items()
    }
    changes["schedule"] = dataclasses.replace(changes["schedule"], length=length)
    if run is not None:
        changes["run"] = run
    return config_lib.replace_groups(config, **changes)
