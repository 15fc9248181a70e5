"""Groups of flags and configurations of the paper's experiments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from adaptive_nets.training.config import TrainConfig, require
from adaptive_nets.training.ranges import (
    Count,
    FlagGroup,
    NonNegative,
    Positive,
    Range,
    Seconds,
    Share,
    Size,
)
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField

PRIORS = "priors"
"""Folder of a seed in which a run of `dwp.priors` leaves its priors."""

Kind = Literal["dwp", "log-uniform", "standard-normal", "gaussian", "deterministic"]
Init = Literal["vae", "filters", "xavier", "pretrained"]

OPTIONAL_PRIORS = RunInputField("optional", part=PRIORS, any_seed=True)
REQUIRED_PRIORS = RunInputField("required", part=PRIORS, any_seed=True, random=True)
_Priors = Annotated[str, OPTIONAL_PRIORS]
_RequiredPriors = Annotated[str, REQUIRED_PRIORS]


@dataclasses.dataclass(frozen=True)
class NetworkConfig(FlagGroup, flags="network"):
    """Widths of the network."""

    widths: Annotated[tuple[int, ...], Range(1, 2**16)] = ()
    """Channels of the convolutions; none for those of the target network of the paper."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`."""
        return {"widths": self.widths} if self.widths else {}


@dataclasses.dataclass(frozen=True)
class SourcesConfig(FlagGroup, flags="sources"):
    """Source networks and the choice of their kernels."""

    count: Count = 100
    """Number of source networks, trained in one program."""
    penalty: NonNegative = 1e-3
    """Factor of the sum of squares of kernels and biases of convolutions, in the loss."""
    least_norm: NonNegative = 0.0
    """Least norm of a slice that is kept; 0 for that of the released kernels of its size."""
    relative_norm: Share = 0.0
    """Least norm as a share of the largest one; replaces --sources.least-norm if above 0."""
    held_out: Share = 0.2
    """Share of the kept slices that no prior is trained on."""


@dataclasses.dataclass(frozen=True)
class VAEConfig(FlagGroup, flags="vae"):
    """Training of the variational autoencoder of each kernel size."""

    hidden: Size = 0
    """Hidden width; 0 for the paper's, 32 (7x7, 16x16), 64 (5x5)."""
    latent: Size = 0
    """Number of latent variables; 0 for the paper's, 2 (7x7, 16x16), 4 (5x5)."""
    epochs: Count = 300
    """Passes over the slices; the rate decays linearly to 0."""
    least_steps: Size = 0
    """Least number of steps; there are more passes over few slices."""
    batch_size: Annotated[int, Range(1, 2**20)] = 128
    """Slices per step."""
    learning_rate: Positive = 1e-3
    """Learning rate of the first step."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 42
    """Seed of the orders and draws, beside the seed of the run."""
    train_limit: Size = 0
    """Largest number of training slices; 0 for all."""
    samples: Count = 1000
    """Draws of the importance-weighted estimate of held-out log-densities."""
    measured: Count = 500
    """Held-out slices that are measured, at most."""


@dataclasses.dataclass(frozen=True)
class PriorsConfig:
    """Training of source networks and of the priors of their kernels."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    sources: SourcesConfig = SourcesConfig()
    vae: VAEConfig = VAEConfig()


@dataclasses.dataclass(frozen=True)
class TimingConfig(FlagGroup, flags="timing"):
    """Timing of steps."""

    seconds: Seconds = 60.0
    """Approximate time of all rounds, after a warm-up."""


@dataclasses.dataclass(frozen=True)
class TimedSourcesConfig:
    """Timing of steps of source networks, in one program and one after the other."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    sources: SourcesConfig = SourcesConfig()
    timing: TimingConfig = TimingConfig()


@dataclasses.dataclass(frozen=True)
class LabelsConfig(FlagGroup, flags="labels"):
    """Labelled images."""

    count: Size = 0
    """Labelled training images, the same number of each class; 0 for all."""


@dataclasses.dataclass(frozen=True)
class PriorConfig(FlagGroup, flags="prior"):
    """Prior of the kernels, and where they start."""

    source: _Priors = ""
    """Run of dwp.priors; needed by prior dwp and gaussian and by init vae and filters."""
    kind: Kind = "standard-normal"
    """Prior of the kernels; deterministic for point estimates with weight decay."""
    init: Init = "xavier"
    """Initial means: drawn from the prior networks, source kernels, Xavier, or --start.weights."""
    samples: Count = 1
    """Draws of kernels and latent variables per step, of the bound of prior dwp."""
    subset: Size = 0
    """Slices of each layer, drawn anew in each step, whose bound is computed and scaled; 0 for
    all. The estimate stays unbiased."""
    log_variance: Annotated[float, Range(-60, 10)] = -10.0
    """Initial log variance of every weight."""
    penalty: NonNegative = 1e-3
    """Factor of the sum of squares of prior deterministic."""
    members: Count = 10
    """Sampled networks whose mean probability is measured."""

    def __post_init__(self):
        super().__post_init__()
        user = next(
            (f"--prior.kind {self.kind}" for kind in ("dwp", "gaussian") if self.kind == kind),
            f"--prior.init {self.init}" if self.init in ("vae", "filters") else "",
        )
        required = isinstance(self, SourcedPriorConfig)
        require(
            not user or required or bool(self.source), "prior.source", self.source,
            f"the folder of a run of dwp.priors, since {user} needs it",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SourcedPriorConfig(PriorConfig, flags="prior"):
    """Prior of the kernels that is learnt from source networks."""

    source: _RequiredPriors = ""
    """Run of dwp.priors; 'random' for untrained priors."""
    kind: Kind = "dwp"
    """Prior of the kernels; deterministic for point estimates with weight decay."""
    init: Init = "vae"
    """Initial means: drawn from the prior networks, source kernels, Xavier, or --start.weights."""


@dataclasses.dataclass(frozen=True)
class StartConfig(FlagGroup, flags="start"):
    """Network whose kernels the training starts from."""

    weights: Annotated[str, RunInputField("optional")] = ""
    """Run or weights file of the same network, with --prior.init pretrained."""


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Training of a target network on few labels."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    labels: LabelsConfig = LabelsConfig()
    prior: PriorConfig = PriorConfig()
    start: StartConfig = StartConfig()

    def __post_init__(self):
        wanted = self.prior.init == "pretrained"
        require(
            wanted == bool(self.start.weights), "start.weights", self.start.weights,
            "a run or a weights file, since --prior.init is pretrained" if wanted
            else "none, since --prior.init is not pretrained",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SourcedFewShotConfig(FewShotConfig):
    """Training of a target network on few labels with a learnt prior or initialisation."""

    prior: PriorConfig = SourcedPriorConfig()


@dataclasses.dataclass(frozen=True)
class KernelsConfig(FlagGroup, flags="kernels"):
    """Initial kernels of the convolutions."""

    init: Literal["vae", "filters", "xavier"] = "xavier"
    """Drawn from the prior networks, source kernels, or Xavier."""
    draw: Literal["sample", "mean"] = "sample"
    """Of a prior: a sample with its noise, or the mean given the latent variables."""
    source: _Priors = ""
    """Run of dwp.priors, needed by init vae and filters."""

    def __post_init__(self):
        super().__post_init__()
        required = isinstance(self, SourcedKernelsConfig)
        require(
            self.init == "xavier" or required or bool(self.source), "kernels.source", self.source,
            f"the folder of a run of dwp.priors, since --kernels.init {self.init} needs it",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SourcedKernelsConfig(KernelsConfig, flags="kernels"):
    """Initial kernels of the convolutions, learnt from source networks."""

    init: Literal["vae", "filters", "xavier"] = "vae"
    """Drawn from the prior networks, source kernels, or Xavier."""
    source: _RequiredPriors = ""
    """Run of dwp.priors; 'random' for untrained priors."""


@dataclasses.dataclass(frozen=True)
class KernelsRunConfig:
    """Training of a network with given initial kernels, frozen or not."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    kernels: KernelsConfig = KernelsConfig()


@dataclasses.dataclass(frozen=True)
class SourcedKernelsRunConfig(KernelsRunConfig):
    """Training of a network with initial kernels that are learnt from source networks."""

    kernels: KernelsConfig = SourcedKernelsConfig()
