"""Configurations of the methods: ensembles of one small network."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import ModelConfig, require
from adaptive_nets.training.ranges import (
    Count,
    EvalBatch,
    FlagGroup,
    Length,
    NonNegative,
    Positive,
    Range,
    Share,
    Size,
)
from experiments.shared.ensembling.configs import CalibrationConfig, ViewsConfig
from experiments.suite.run_inputs import RunInputField

StartWeights = Annotated[str, RunInputField("optional")]


@dataclasses.dataclass(frozen=True)
class MethodDataConfig(FlagGroup, flags="data"):
    """Images, batches and augmentation of training images."""

    name: str = "cifar10"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    batch_size: Annotated[int, Range(1, 2**20)] = 128
    """Images per optimiser step."""
    eval_batch_size: EvalBatch = 500
    """Test images at a time; random parts of views depend on it."""
    train_limit: Size = 0
    """Number of training images, from the first; 0 for all."""
    test_limit: Size = 0
    """Number of test images, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(FlagGroup, flags="network"):
    """Size of the network, and dropout in its residual units."""

    depth: Annotated[int, Range(8, 1202)] = 8
    """Number of layers, 6 n + 2, in place of that of the named network."""
    dropout_rate: Share = 0.0
    """Dropout before the second convolution of every residual unit."""


@dataclasses.dataclass(frozen=True)
class SgdConfig(FlagGroup, flags="optimiser"):
    """SGD of the network that a method starts from, or of its members."""

    learning_rate: Positive = 0.1
    """Learning rate until the decay starts."""
    momentum: Share = 0.9
    """Momentum, of the method's own training too."""
    weight_decay: NonNegative = 3e-4
    """L2 regularisation of kernels."""


@dataclasses.dataclass(frozen=True)
class LengthConfig(FlagGroup, flags="schedule"):
    """Length of training."""

    length: Length = "300 epochs"
    """Length of the training of a network, or of a cosine cycle: steps, epochs or examples."""


@dataclasses.dataclass(frozen=True)
class DecayConfig(FlagGroup, flags="decay"):
    """Decay of the learning rate: constant, then linear, then constant."""

    hold: Annotated[float, Range(0, 1)] = 0.5
    """Start of the linear decay, as a share of the length."""
    end: Annotated[float, Range(0, 1)] = 0.9
    """End of the linear decay, as a share of the length."""
    final: Annotated[float, Range(0, 1)] = 0.01
    """Learning rate after the decay, as a share of the first one."""

    def __post_init__(self):
        super().__post_init__()
        require(self.hold <= self.end, "decay.end", self.end, f"at least {self.hold:g}")


@dataclasses.dataclass(frozen=True)
class CycleConfig(FlagGroup, flags="cycle"):
    """Triangular cycles of the learning rate."""

    length: Length = "4 epochs"
    """Length of a cycle; its member is in the middle."""
    high: Positive = 5e-2
    """Learning rate at both ends of a cycle."""
    low: Positive = 5e-4
    """Learning rate in the middle of a cycle."""


@dataclasses.dataclass(frozen=True)
class NoiseConfig(FlagGroup, flags="noise"):
    """Langevin noise at the end of a cycle, and the members there."""

    samples: Count = 3
    """Members per cycle."""
    every: Length = "1 epochs"
    """Distance of the members of a cycle; noise is added in the steps before each."""
    temperature: NonNegative = 2e-5
    """Temperature T of the posterior; 1 is the Bayesian one, 1 / images that of the authors."""


@dataclasses.dataclass(frozen=True)
class SwagConfig(FlagGroup, flags="swag"):
    """Gaussian of the iterates of SGD."""

    length: Length = "140 epochs"
    """Length of the training at a constant learning rate."""
    every: Length = "1 epochs"
    """Distance of the iterates."""
    learning_rate: Positive = 0.01
    """Constant learning rate; the first network is trained down to it."""
    rank: Annotated[int, Range(2, 1000)] = 20
    """Number of deviations of the low-rank part."""
    scale: NonNegative = 0.5
    """Factor of the covariance of samples."""
    statistics_images: Size = 0
    """Training images for the batch statistics of a sample, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class VariationalConfig(FlagGroup, flags="variational"):
    """Mean-field variational inference from a trained network."""

    length: Length = "100 epochs"
    """Length of the training."""
    learning_rate: Positive = 0.01
    """Learning rate of the means; held and lowered like that of the first network."""
    sigma_rate: Positive = 1e-3
    """Learning rate of the log deviations (Adam)."""
    kl_weight: NonNegative = 1e-4
    """Weight of the divergence from the prior; 1 gives the variational bound."""
    log_sigma: Annotated[float, Range(-30, 5)] = -5.0
    """Initial log deviation of every weight."""


@dataclasses.dataclass(frozen=True)
class LaplaceConfig(FlagGroup, flags="laplace"):
    """Kronecker-factored Laplace approximation of a trained network."""

    images: Size = 0
    """Training images for the factors, from the first; 0 for all."""
    held_out: Annotated[int, Range(4, 10**6)] = 5000
    """Last training images, left out of training, on which the scale is chosen."""
    scales: Annotated[tuple[float, ...], Range(0, 1e3, least=1)] = (
        0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.0,
    )  # fmt: skip
    """Scales of the noise to choose from."""
    samples: Count = 10
    """Members whose averaged prediction judges a scale."""


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """Values of every method."""

    weights: StartWeights = ""
    """Trained network to start from: a run or a weights file; empty trains one."""
    data: MethodDataConfig = MethodDataConfig()
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet20_cifar10")
    )
    network: NetworkConfig = NetworkConfig()
    optimiser: SgdConfig = SgdConfig()
    schedule: LengthConfig = LengthConfig()
    views: ViewsConfig = dataclasses.field(default_factory=ViewsConfig)
    """Numbers of samples: members, each with a view of its own under augmentation."""
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)


@dataclasses.dataclass(frozen=True)
class SingleMethodConfig(MethodConfig):
    """One network with the paper's decay of the learning rate; the base of most methods."""

    decay: DecayConfig = DecayConfig()


@dataclasses.dataclass(frozen=True)
class EnsembleConfig(FlagGroup, flags="ensemble"):
    """Deep ensemble."""

    groupings: Count = 5
    """Random orders of the members over which the curve of the deep ensemble is averaged."""


@dataclasses.dataclass(frozen=True)
class DeepEnsembleConfig(SingleMethodConfig):
    """Independently trained networks; the first may be given."""

    ensemble: EnsembleConfig = EnsembleConfig()


@dataclasses.dataclass(frozen=True)
class SnapshotConfig(MethodConfig):
    """Snapshots at the ends of cosine cycles (SSE)."""

    optimiser: SgdConfig = SgdConfig(learning_rate=0.2)
    schedule: LengthConfig = LengthConfig(length="40 epochs")


@dataclasses.dataclass(frozen=True)
class CyclicalLangevinConfig(MethodConfig):
    """Samples in the last epochs of cosine cycles, with noise (cSGLD)."""

    optimiser: SgdConfig = SgdConfig(learning_rate=0.5, momentum=0.0)
    schedule: LengthConfig = LengthConfig(length="50 epochs")
    noise: NoiseConfig = NoiseConfig()


@dataclasses.dataclass(frozen=True)
class FastGeometricConfig(SingleMethodConfig):
    """Members in the middle of triangular cycles from a trained network (FGE)."""

    schedule: LengthConfig = LengthConfig(length="160 epochs")
    cycle: CycleConfig = CycleConfig()


@dataclasses.dataclass(frozen=True)
class SwagMethodConfig(SingleMethodConfig):
    """Samples from the Gaussian of SGD's iterates (SWAG)."""

    schedule: LengthConfig = LengthConfig(length="160 epochs")
    decay: DecayConfig = DecayConfig(final=0.1)
    swag: SwagConfig = SwagConfig()


@dataclasses.dataclass(frozen=True)
class VariationalMethodConfig(SingleMethodConfig):
    """Samples from a mean-field Gaussian (VI)."""

    variational: VariationalConfig = VariationalConfig()


@dataclasses.dataclass(frozen=True)
class LaplaceMethodConfig(SingleMethodConfig):
    """Samples around a trained network (K-FAC-Laplace)."""

    laplace: LaplaceConfig = LaplaceConfig()
