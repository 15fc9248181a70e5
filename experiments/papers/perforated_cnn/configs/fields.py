"""Configurations of the paper's experiments, and their groups of values."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import ModelConfig, TrainConfig, require
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField

Device = Literal["cpu", "gpu"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu")
MaskKind = Literal["uniform", "grid", "pooling", "impact"]


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """How the network that is perforated later begins, and its regularisation."""

    dropout_rate: float = 0.5
    """Share of values dropped in training after the first two poolings."""
    kernel_init: Literal["he", "published"] = "he"
    """Initial weights: He-normal over the inputs, or the authors' 0.05 throughout."""

    def __post_init__(self):
        require(
            0 <= self.dropout_rate < 1,
            "network.dropout-rate",
            self.dropout_rate,
            "a number in [0, 1)",
        )


@dataclasses.dataclass(frozen=True)
class NinConfig:
    """A training run of a network in network."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()


@dataclasses.dataclass(frozen=True)
class PerforationConfig:
    """Which network is perforated, and where it has to be fast."""

    source: Annotated[str, RunInputField("required", random=True)] = ""
    """Run of perforated_cnn.table1.nin, or a file of weights for ImageNet's rows; or 'random'."""
    device: Device = "cpu"
    """Device whose time counts; the run refuses another."""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """The greedy search."""

    target: float = 2.0
    """Factor at which it ends: of time or of multiply-accumulates, as the cost says."""
    cost: Literal["time", "macs"] = "time"
    """What a candidate saves: measured time of the whole network, or multiply-accumulates."""
    steps: int = 50
    """Accepted steps at most."""
    kinds: tuple[MaskKind, ...] = ("impact",)
    """Kinds of masks that are allowed."""
    repetitions: int = 2
    """Random masks tried for each layer and kind."""
    impact_on: Literal["perforated", "original"] = "perforated"
    """Network that impacts are taken of: as perforated so far, or always the original."""
    images: int = 10000
    """Training images that the loss is a mean over."""
    impact_images: int = 5000
    """Training images that the impacts are a mean over."""
    batch_size: int = 128
    """Images at a time, of the pass that is timed too."""
    runs: int = 5
    """Passes that a time is the mean of."""
    begin_from: Annotated[str, RunInputField("resumed", part="search")] = ""
    """Run whose search is resumed, as if it were this one's; empty to begin anew."""

    def __post_init__(self):
        require(self.target >= 1, "search.target", self.target, "a factor of 1 or more")
        for name in ("steps", "repetitions", "images", "impact_images", "batch_size", "runs"):
            value = getattr(self, name)
            require(value > 0, "search." + name.replace("_", "-"), value, "a positive number")
        require(bool(self.kinds), "search.kinds", self.kinds, "at least one kind of mask")


@dataclasses.dataclass(frozen=True)
class TimingConfig:
    """Time of whole networks, dense and perforated in turns."""

    batches: tuple[int, ...] = (1, 16)
    """Images per pass; the last size is the row's own."""
    seconds: float = 60.0
    """About how long each size is timed."""

    def __post_init__(self):
        require(
            bool(self.batches) and min(self.batches) > 0,
            "timing.batches",
            self.batches,
            "positive numbers",
        )
        require(
            math.isfinite(self.seconds) and self.seconds >= 0,
            "timing.seconds",
            self.seconds,
            "0 or more seconds",
        )


@dataclasses.dataclass(frozen=True)
class SearchedConfig:
    """A trained network, perforated by the search and tuned; training values are of the tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    perforation: PerforationConfig = PerforationConfig()
    search: SearchConfig = SearchConfig()
    timing: TimingConfig = TimingConfig(batches=(1, 16, 128))


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """A perforation by rule, the same for all layers that the paper perforates."""

    reduction: float = 2.0
    """Factor by which multiply-accumulates fall at least."""
    falloff: float = 0.0
    """Keep fractions fall with this power of a layer's positions; 0: all layers keep the same."""
    kind: Literal["uniform", "grid", "regular"] = "grid"
    """Kind of the masks; regular grids, every so manieth row and column, are not the paper's."""
    layer: str = ""
    """The only layer that is perforated, by its name; empty for all."""
    rate: float = 0.0
    """Perforation rate of that layer."""

    def __post_init__(self):
        require(self.reduction >= 1, "rule.reduction", self.reduction, "a factor of 1 or more")
        require(0 <= self.falloff <= 1, "rule.falloff", self.falloff, "a power from 0 to 1")
        require(0 <= self.rate < 1, "rule.rate", self.rate, "a perforation rate in [0, 1)")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Images that the errors of a network perforated by rule are measured on."""

    name: str = "imagenet"
    """Name of the data set, see 'adaptive-nets data list'."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Where it may come from; auto takes the first of the three that is there."""
    eval_batch_size: int = 50
    """Images at a time."""
    test_limit: int = 0
    """Take the first so many test images only; 0 for all."""

    def __post_init__(self):
        size, limit = self.eval_batch_size, self.test_limit
        require(size > 0, "data.eval-batch-size", size, "a positive number")
        require(limit >= 0, "data.test-limit", limit, "0 or more images")


@dataclasses.dataclass(frozen=True)
class ReadingConfig:
    """Reading of these images."""

    input_workers: int = 0
    """Processes that decode images; 0 for threads alone."""
    input_threads: int = 16
    """Threads that decode at once, in each of these processes."""
    input_prefetch: int = 2
    """Batches that are read ahead."""

    def __post_init__(self):
        for field, least in (("input_workers", 0), ("input_threads", 1), ("input_prefetch", 1)):
            value = getattr(self, field)
            require(value >= least, "run." + field.replace("_", "-"), value, f"{least} or more")


@dataclasses.dataclass(frozen=True)
class RuledConfig:
    """A network perforated by rule, to be timed; nothing is trained."""

    data: ValidationConfig = ValidationConfig()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    run: ReadingConfig = ReadingConfig()
    perforation: PerforationConfig = PerforationConfig()
    rule: RuleConfig = RuleConfig()
    timing: TimingConfig = TimingConfig()

    @property
    def needs_data(self) -> bool:
        """Errors need data and trained weights; what a network costs needs neither."""
        return bool(self.perforation.source)


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """One layer perforated at several rates with one kind of mask."""

    name: str = "conv2"
    """The layer."""
    kind: MaskKind = "impact"
    """Kind of the mask."""
    rates: tuple[float, ...] = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6, 7 / 8, 9 / 10)
    """Perforation rates, rising."""
    impact_on: Literal["perforated", "original"] = "original"
    """Network that impacts are taken of: perforated at the rate before, or always the original."""
    images: int = 10000
    """Training images that the loss is a mean over."""
    impact_images: int = 5000
    """Training images that the impacts are a mean over."""
    batch_size: int = 128
    """Images at a time."""

    def __post_init__(self):
        if any(not 0 < rate < 1 for rate in self.rates) or list(self.rates) != sorted(self.rates):
            raise UserError(f"--layer.rates is {self.rates!r}; expected rising numbers in (0, 1)")
        for name in ("images", "impact_images", "batch_size"):
            value = getattr(self, name)
            require(value > 0, "layer." + name.replace("_", "-"), value, "a positive number")


@dataclasses.dataclass(frozen=True)
class SourceDataConfig:
    """Images that a trained network knows, normalised as in its training."""

    name: str = "cifar10"
    """Name of the data set, see 'adaptive-nets data list'."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Where it may come from; auto takes the first of the three that is there."""
    pixel_scale: float = 255.0
    """Pixels are divided by this."""
    centre: Literal["none", "channel", "pixel"] = "pixel"
    """Mean of the training set that is subtracted: none, one per channel, or one per pixel."""
    standardise: bool = True
    """Divide by the training set's standard deviation per channel too."""
    per_image: bool = False
    """Give every image mean 0 and deviation 1 of its own."""
    train_limit: int = 0
    """Take the first so many training images only; 0 for all."""
    test_limit: int = 0
    """Take the first so many test images only; 0 for all."""

    def __post_init__(self):
        require(self.pixel_scale > 0, "data.pixel-scale", self.pixel_scale, "a positive number")
        require(self.train_limit >= 0, "data.train-limit", self.train_limit, "0 or more images")
        require(self.test_limit >= 0, "data.test-limit", self.test_limit, "0 or more images")


@dataclasses.dataclass(frozen=True)
class SingleLayerConfig:
    """One layer of a trained network under one kind of mask; nothing is trained."""

    data: SourceDataConfig = SourceDataConfig()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    perforation: PerforationConfig = PerforationConfig()
    layer: LayerConfig = LayerConfig()
    timing: TimingConfig = TimingConfig(batches=(16,))


@dataclasses.dataclass(frozen=True)
class TradeoffConfig:
    """Points of the three curves."""

    keeps: tuple[float, ...] = (0.75, 0.5, 0.35, 0.25)
    """Keep fractions of all perforated layers, and of all layers with a larger stride."""
    sizes: tuple[int, ...] = (28, 24, 20, 16)
    """Sides of smaller input images, pixels."""
    kind: MaskKind = "impact"
    """Kind of the masks of perforation."""
    search: Annotated[str, RunInputField(part="search")] = ""
    """Run of a row of Table 3 whose search gives the masks; the kind above where empty."""
    impact_images: int = 5000
    """Training images that the impacts are a mean over."""
    batch_size: int = 128
    """Images at a time, of the impacts."""

    def __post_init__(self):
        good = all(0 < keep <= 1 for keep in self.keeps) and bool(self.keeps)
        require(good, "tradeoff.keeps", self.keeps, "fractions in (0, 1]")
        good = all(size > 0 for size in self.sizes)
        require(good, "tradeoff.sizes", self.sizes, "positive numbers of pixels")
        for name in ("impact_images", "batch_size"):
            value = getattr(self, name)
            require(value > 0, "tradeoff." + name.replace("_", "-"), value, "a positive number")


@dataclasses.dataclass(frozen=True)
class TradeoffRunConfig:
    """Perforation, larger stride, smaller input of one network; training values are of tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    perforation: PerforationConfig = PerforationConfig()
    tradeoff: TradeoffConfig = TradeoffConfig()
    timing: TimingConfig = TimingConfig(batches=(128,))
