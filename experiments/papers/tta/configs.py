"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import ModelConfig
from adaptive_nets.training.ranges import FlagGroup, NonNegative
from experiments.papers.tta.methods.presets import METHODS
from experiments.shared.ensembling.configs import (
    CalibrationConfig,
    ImagesConfig,
    ViewsConfig,
    Weights,
)
from experiments.suite.experiment import Experiment, Preset

RUNNER = "experiments.papers.tta.experiment:run"


@dataclasses.dataclass(frozen=True)
class SpeedConfig(FlagGroup, flags="speed"):
    """Throughput of views beside that of the images themselves."""

    seconds: NonNegative = 20.0
    """Time of the measurement, seconds; 0 leaves it out."""


@dataclasses.dataclass(frozen=True)
class SecondConfig(FlagGroup, flags="second"):
    """Second member of the ensemble."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    name: str = "resnet32_cifar10"
    """Name of the network, see 'adaptive-nets models'."""


@dataclasses.dataclass(frozen=True)
class SingleConfig:
    """Test-time augmentation of one trained network."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet32_cifar10")
    )
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
    speed: SpeedConfig = SpeedConfig()


@dataclasses.dataclass(frozen=True)
class PairConfig:
    """Test-time augmentation of an ensemble of two trained networks."""

    weights: Weights = ""
    """First member: a run, a weights file, or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet20_cifar10")
    )
    second: SecondConfig = SecondConfig()
    views: ViewsConfig = dataclasses.field(
        default_factory=lambda: ViewsConfig(counts=(2, 4, 10, 20, 50, 100))
    )
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
    speed: SpeedConfig = SpeedConfig()


_DEVIATIONS = (
    "Networks trained by others with the same crops and flips; the paper trains its own, of other "
    "architectures.",
    "Crops are padded with black pixels before normalisation.",
)


def _presets(config: SingleConfig | PairConfig) -> dict[str, Preset]:
    counts = config.views.counts
    quick = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, test_limit=2000),
        views=dataclasses.replace(config.views, counts=counts[:-2]),
        speed=SpeedConfig(seconds=5.0),
    )
    smoke = dataclasses.replace(
        config,
        weights="random",
        data=dataclasses.replace(config.data, test_limit=40, train_limit=40, eval_batch_size=16),
        views=dataclasses.replace(config.views, counts=counts[:2]),
        speed=SpeedConfig(seconds=0.0),
    )
    if isinstance(smoke, PairConfig):
        smoke = dataclasses.replace(
            smoke, second=SecondConfig(weights="random", name="resnet20_cifar10")
        )
    else:
        smoke = dataclasses.replace(smoke, model=ModelConfig(name="resnet20_cifar10"))
    return {"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)}


def _single(layers: int) -> Experiment:
    """Defines the test-time augmentation of one ResNet for CIFAR-10."""
    return Experiment(
        id=f"tta.cifar10.resnet{layers}",
        title=f"test-time augmentation of ResNet-{layers} on CIFAR-10",
        row=f"cifar10.resnet{layers}",
        presets=_presets(SingleConfig(model=ModelConfig(name=f"resnet{layers}_cifar10"))),
        runner=RUNNER,
        data="cifar10, and trained weights of the network",
        deviations=_DEVIATIONS,
        recipe=("speed.seconds", "views.counts", "calibration.folds", "calibration.repeats"),
    )


EXPERIMENTS = (
    *METHODS,
    _single(20),
    _single(32),
    Experiment(
        id="tta.cifar10.resnet20-and-32",
        title="test-time augmentation of an ensemble of ResNet-20 and ResNet-32 on CIFAR-10",
        row="cifar10.resnet20-and-32",
        presets=_presets(PairConfig()),
        runner=RUNNER,
        data="cifar10, and trained weights of both networks",
        deviations=_DEVIATIONS,
        recipe=("speed.seconds", "views.counts", "calibration.folds", "calibration.repeats"),
    ),
)
