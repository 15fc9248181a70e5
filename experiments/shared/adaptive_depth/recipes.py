"""Training recipes of the authors, and presets, for networks of adaptive depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.shared import trained_weights
from experiments.suite import config as config_lib
from experiments.suite.experiment import Bound, Preset

# Zero-padded to 36x36, cropped and flipped at random, then standardised per image.
CIFAR_DATA = DataConfig(
    name="cifar10",
    batch_size=128,
    eval_batch_size=500,
    centre="none",
    per_image=True,
    crop_padding=2,
    flip=True,
)
# L2 penalty of 2e-4 / 2 · ‖w‖². It includes the classifier, a convolution in the authors' code.
CIFAR_OPTIMISER = OptimiserConfig(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=2e-4)
CIFAR_SCHEDULE = ScheduleConfig(
    length="100000 steps", kind="step", boundaries=("60%", "75%", "90%"), factor=0.1
)
TUNED: dict[str, Any] = {
    "taus": (0.3, 0.5, 1.0), "bias": -1.0, "plain_rate": 0.1, "distillation": 0.9,
}  # fmt: skip
"""Settings of halting in a second stage. Trained weights fit the training set already, so that
labels teach little; the predictions of the plain network teach more. Higher values of τ than in
training from scratch make up for the few steps and for the size of the distillation loss, as does
the bias, with which every unit takes part from the first step."""
SHIFTED: dict[str, Any] = {**TUNED, "taus": (0.5,), "shifts": (-2.5, 3.0)}
"""Settings of a second stage for all budgets. The least shift runs nearly all units, with little
weight of the first ones; the most ends nearly all blocks after two."""
BUDGETS: dict[str, Any] = {**TUNED, "taus": (0.4,), "shifts": (-2.5, 1.5), "tau_growth": 1.0}
"""Settings of a second stage for all budgets, with a τ of each image between 0.03 and 1.8."""
TUNED_RECIPE = (
    "halting.taus", "halting.plain_rate", "halting.distillation", "halting.softening",
    "halting.shifts", "halting.tau_growth",
)  # fmt: skip
"""Values of a second stage that belong to its recipe and not to its row, which is of any τ."""
OFTEN = RunConfig(log_every="1%", eval_every="5%", checkpoint_every="5%")
_QUICK_RUN = RunConfig(log_every="2%", eval_every="20%", checkpoint_every="10%")
_DAY_RUN = RunConfig(log_every="1%", eval_every="10%", checkpoint_every="5%")
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")


# Inception preprocessing: crops from 5 % of the area, full colour distortion, pixels in [-1, 1].
IMAGENET_DATA = DataConfig(
    name="imagenet",
    batch_size=32,
    eval_batch_size=100,
    pixel_scale=127.5,
    centre="middle",
    flip=True,
    crop_area=(0.05, 1.0),
    colour_distortion=True,
)
IMAGENET_OPTIMISER = OptimiserConfig(
    name="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-4, label_smoothing=0.1
)
# The step of the authors' released checkpoint, 156 epochs of batches of one worker.
IMAGENET_SCHEDULE = ScheduleConfig(
    length="6266164 steps",
    kind="step",
    boundaries=tuple(f"{30 * i} epochs" for i in range(1, 6)),
    factor=0.1,
)


# Second stage from trained weights, ours: halting heads learn at the rate of their training, the
# trained weights at a tenth of it (`TunedDepthConfig.plain_rate`).
TUNING = TrainConfig(
    data=trained_weights.CIFAR_DATA,
    model=trained_weights.CIFAR_MODEL,
    optimiser=OptimiserConfig(
        name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    schedule=ScheduleConfig(length="5 epochs", kind="cosine", warmup="2%"),
    run=RunConfig(log_every="2%", eval_every="20%", checkpoint_every="10%"),
)  # fmt: skip


def imagenet(model: str) -> TrainConfig:
    """Returns the authors' ImageNet training configuration for a network of the zoo."""
    return TrainConfig(
        data=IMAGENET_DATA,
        model=ModelConfig(name=model),
        optimiser=IMAGENET_OPTIMISER,
        schedule=IMAGENET_SCHEDULE,
        run=RunConfig(
            log_every="1000 steps", eval_every="1 epochs", checkpoint_every="10000 steps"
        ),
    )


def measures_top5(config: TrainConfig) -> bool:
    """Returns whether the top-5 error is measured: on ImageNet."""
    return config.data.name == "imagenet"


def cifar(model: str) -> TrainConfig:
    """Returns the authors' CIFAR-10 training configuration for a network of the zoo."""
    return TrainConfig(
        data=CIFAR_DATA,
        model=ModelConfig(name=model),
        optimiser=CIFAR_OPTIMISER,
        schedule=CIFAR_SCHEDULE,
        run=OFTEN,
    )


def shorter(config: Any, length: str, run: RunConfig) -> Any:
    """Returns a configuration with another length of training and other intervals."""
    schedule = dataclasses.replace(config_lib.training(config).schedule, length=length)
    return config_lib.replace_groups(config, schedule=schedule, run=run)


def presets(
    config: Any,
    *,
    quick: str,
    day: str = "",
    smoke: str = "2 steps",
    bounds: tuple[Bound, ...] = (),
    test_limit: int = 0,
    smoke_groups: Mapping[str, Any] | None = None,
) -> dict[str, Preset]:
    """Returns the presets of an experiment.

    Args:
        config: configuration of the preset paper.
        quick: length of training of the preset quick.
        day: length of training of the preset day, whose rate decays to 0 within it; empty for none.
        smoke: length of training of the preset smoke, which also limits the number of images.
        bounds: bounds of the preset paper.
        test_limit: number of test images of the preset quick; 0 for all.
        smoke_groups: groups of the preset smoke that replace those of `config`, such as a smaller
            network.
    """
    data = config_lib.training(config).data
    small_data = dataclasses.replace(
        data, batch_size=16, eval_batch_size=32, train_limit=64, test_limit=64
    )
    brief_data = dataclasses.replace(data, test_limit=test_limit)
    small, brief = shorter(config, smoke, _SMOKE_RUN), shorter(config, quick, _QUICK_RUN)
    made = {
        "smoke": Preset(
            config_lib.replace_groups(small, **{"data": small_data, **(smoke_groups or {})})
        ),
        "quick": Preset(config_lib.replace_groups(brief, data=brief_data)),
    }
    if day:
        schedule = ScheduleConfig(length=day, kind="cosine", warmup="15%")
        made["day"] = Preset(config_lib.replace_groups(config, schedule=schedule, run=_DAY_RUN))
    return {**made, "paper": Preset(config, bounds=bounds)}


def tuned_presets(config: Any) -> dict[str, Preset]:
    """Returns the presets of a second stage from trained weights.

    Args:
        config: configuration of the preset paper.
    """
    halting = config.halting
    data = dataclasses.replace(
        config.train.data, batch_size=16, eval_batch_size=32, train_limit=64, test_limit=64
    )
    small = config_lib.replace_groups(
        shorter(config, "2 steps", _SMOKE_RUN),
        data=data,
        model=trained_weights.SMOKE_MODEL,
        halting=dataclasses.replace(halting, taus=halting.taus[-1:], start_from="random"),
    )
    brief = config_lib.replace_groups(
        shorter(config, "250 steps", _QUICK_RUN),
        halting=dataclasses.replace(halting, taus=halting.taus[1:2] or halting.taus),
    )
    return {
        "smoke": Preset(small),
        "quick": Preset(brief),
        "day": Preset(shorter(config, "3 epochs", config.train.run)),
        "paper": Preset(config),
    }
