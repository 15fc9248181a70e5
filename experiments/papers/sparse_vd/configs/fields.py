"""Groups of fields and configurations of the paper's experiments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import TrainConfig, require
from adaptive_nets.training.duration import Timing, check_order
from adaptive_nets.training.ranges import FlagGroup, Moment, NonNegative, Range
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class VariationalConfig(FlagGroup, flags="variational"):
    """Sparse variational dropout."""

    kl_start: Moment = "5 epochs"
    """Start of the linear warm-up of the divergence, a duration."""
    kl_full: Moment = "20 epochs"
    """End of the linear warm-up of the divergence, a duration."""
    kl_weight: NonNegative = 1.0
    """Weight of the divergence after the warm-up; 1 gives the variational bound."""
    log_sigma2_init: Annotated[float, Range(-60, 60)] = -10.0
    """Initial log variance of every weight."""
    threshold: Annotated[float, Range()] = 3.0
    """Least log dropout rate, log α, of removed weights."""
    mask_in_training: bool = True
    """Masking of removed weights in training too, as in the authors' LeNet scripts."""
    clip_noise: bool = True
    """Noise variance from the clipped log α, as in the ICML code; otherwise σ²."""
    parameterisation: Literal["additive", "multiplicative"] = "additive"
    """Trained beside θ: additive, log σ², or multiplicative, log α, whose gradients are noisier."""

    def __post_init__(self):
        super().__post_init__()
        self.check_times()

    def check_times(self, timing: Timing | None = None) -> None:
        """Raises a `UserError` if the warm-up starts after its end, as far as units tell."""
        start, end = self.kl_start, self.kl_full
        check_order("variational.kl-start", start, "variational.kl-full", end, timing)


@dataclasses.dataclass(frozen=True)
class SparseVDConfig:
    """Training with sparse variational dropout."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    variational: VariationalConfig = VariationalConfig()


@dataclasses.dataclass(frozen=True)
class WidthConfig(FlagGroup, flags="network"):
    """Width of the VGG-like network."""

    width: Annotated[float, Range(0, 16, open_low=True)] = 1.0
    """Factor k of all widths, which are rounded down."""

    def __post_init__(self):
        super().__post_init__()
        require(
            int(_FIRST_CHANNELS * self.width) >= 1, "network.width", self.width,
            f"at least 1/{_FIRST_CHANNELS}, for one channel in the first layer",
        )  # fmt: skip

    def overrides(self) -> dict[str, float]:
        """Returns the options of `create_model`."""
        return {"width": self.width}


_FIRST_CHANNELS = 64


@dataclasses.dataclass(frozen=True)
class StartConfig(FlagGroup, flags="start"):
    """Trained dense network that the sparse one starts from."""

    weights: Annotated[str, RunInputField("required", random=True)] = ""
    """Run of the dense row or a weights file; 'random' for new weights."""


@dataclasses.dataclass(frozen=True)
class WideConfig:
    """Training of a dense network of any width."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: WidthConfig = WidthConfig()


@dataclasses.dataclass(frozen=True)
class WideSparseConfig(SparseVDConfig):
    """Training with sparse variational dropout of a network of any width."""

    network: WidthConfig = WidthConfig()


@dataclasses.dataclass(frozen=True)
class StartedSparseConfig(WideSparseConfig):
    """Training with sparse variational dropout from a trained dense network."""

    start: StartConfig = StartConfig()


Config = TrainConfig | SparseVDConfig | WideConfig
"""Any configuration of this paper."""


def overrides(config: Config) -> dict[str, float]:
    """Returns the options of the zoo that a configuration sets for dense and sparse networks."""
    wide = isinstance(config, WideConfig | WideSparseConfig)
    return config.network.overrides() if wide else {}
