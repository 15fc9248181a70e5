"""The experiment and its presets."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import (
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.composition.fields import (
    CompositionConfig,
    HaltingConfig,
    StartConfig,
    TuningConfig,
    VariationalConfig,
)
from experiments.shared.ensembling.configs import CalibrationConfig, ViewsConfig
from experiments.shared.trained_weights import CIFAR_DATA, SMOKE_MODEL
from experiments.suite.experiment import Experiment, Preset

_TRAIN = TrainConfig(
    data=dataclasses.replace(CIFAR_DATA, batch_size=64),
    model=ModelConfig(name="resnet20_cifar10"),
    # Adam: log variances have to move by ten nats within an epoch, trained weights hardly at all.
    optimiser=OptimiserConfig(name="adam", learning_rate=0.03),
    schedule=ScheduleConfig(length="10 epochs", kind="cosine", warmup="2%"),
    run=RunConfig(log_every="2%", eval_every="20%", checkpoint_every="10%"),
)
_RECIPE = tuple(
    f"{name}.{field.name}"
    for name, group in (
        ("tuning", TuningConfig), ("variational", VariationalConfig), ("halting", HaltingConfig),
        ("views", ViewsConfig), ("calibration", CalibrationConfig),
    )
    for field in dataclasses.fields(group)
    if field.name != "networks"
)  # fmt: skip
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")


def _shorter(config: CompositionConfig, length: str, views: int) -> CompositionConfig:
    """Returns the configuration with another length of tuning and number of views."""
    schedule = dataclasses.replace(config.train.schedule, length=length)
    return dataclasses.replace(
        config,
        train=dataclasses.replace(config.train, schedule=schedule),
        views=ViewsConfig(counts=(views,)),
    )


def _smoke(config: CompositionConfig) -> CompositionConfig:
    """Returns the configuration of two steps on few images."""
    short = _shorter(config, "2 steps", 2)
    data = dataclasses.replace(
        short.train.data, batch_size=8, eval_batch_size=16, train_limit=32, test_limit=32
    )
    train = dataclasses.replace(short.train, data=data, model=SMOKE_MODEL, run=_SMOKE_RUN)
    return dataclasses.replace(
        short,
        train=train,
        start=StartConfig(weights="random"),
        tuning=dataclasses.replace(short.tuning, networks=("both",)),
    )


def _quick(config: CompositionConfig) -> CompositionConfig:
    short = _shorter(config, "150 steps", 2)
    data = dataclasses.replace(short.train.data, test_limit=2000)
    return dataclasses.replace(short, train=dataclasses.replace(short.train, data=data))


_PAPER = CompositionConfig(train=_TRAIN)

EXPERIMENTS = (
    Experiment(
        id="composition.cifar10.resnet20",
        aliases=("composition.cifar10",),
        title="sparse weights, adaptive depth and averaged views in one ResNet-20 on CIFAR-10",
        row="cifar10.resnet20",
        presets={
            "smoke": Preset(_smoke(_PAPER)),
            "quick": Preset(_quick(_PAPER)),
            "day": Preset(_shorter(_PAPER, "1 epochs", 4)),
            "paper": Preset(_PAPER),
        },
        runner="experiments.papers.composition.experiment:run",
        data="cifar10, and trained weights of ResNet-20",
        deviations=("No paper has this comparison; all lengths, rates and weights are ours.",),
        recipe=_RECIPE,
    ),
)
