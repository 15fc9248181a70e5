"""Configurations of the paper's experiments and their groups of fields."""

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
    """Initialisation and regularisation of the network to perforate."""

    dropout_rate: float = 0.5
    """Dropout rate after the first two poolings."""
    kernel_init: Literal["he", "published"] = "he"
    """Distribution of initial weights: He-normal, or the authors' normal of deviation 0.05."""

    def __post_init__(self):
        require(
            0 <= self.dropout_rate < 1,
            "network.dropout-rate",
            self.dropout_rate,
            "a number in [0, 1)",
        )


@dataclasses.dataclass(frozen=True)
class NinConfig:
    """Training of a network in network."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()


@dataclasses.dataclass(frozen=True)
class PerforationConfig:
    """Network to perforate, and the device of its times."""

    source: Annotated[str, RunInputField("required", random=True)] = ""
    """Run of perforated_cnn.table1.nin, file of weights (rows of ImageNet), or 'random'."""
    device: Device = "cpu"
    """Device to time on; a run on another device is an error."""


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """Greedy search for a perforation."""

    target: float = 2.0
    """Factor of reduced cost at which the search ends."""
    cost: Literal["time", "macs"] = "time"
    """Cost to reduce: measured time of the whole network, or multiply-accumulates."""
    steps: int = 50
    """Largest number of accepted steps."""
    kinds: tuple[MaskKind, ...] = ("impact",)
    """Kinds of masks to try."""
    repetitions: int = 2
    """Number of random masks per layer and kind."""
    impact_on: Literal["perforated", "original"] = "perforated"
    """Network whose impacts are computed: as perforated so far, or the original."""
    images: int = 10000
    """Number of training images of the loss."""
    impact_images: int = 5000
    """Number of training images of the impacts."""
    batch_size: int = 128
    """Images per batch, also of the timed pass."""
    runs: int = 5
    """Number of passes averaged into one time."""
    begin_from: Annotated[str, RunInputField("resumed", part="search")] = ""
    """Run whose search is resumed as this run's own; empty for a new search."""

    def __post_init__(self):
        require(self.target >= 1, "search.target", self.target, "a factor of 1 or more")
        for name in ("steps", "repetitions", "images", "impact_images", "batch_size", "runs"):
            value = getattr(self, name)
            require(value > 0, "search." + name.replace("_", "-"), value, "a positive number")
        require(bool(self.kinds), "search.kinds", self.kinds, "at least one kind of mask")


@dataclasses.dataclass(frozen=True)
class TimingConfig:
    """Timing of whole networks, dense and perforated in turns."""

    batches: tuple[int, ...] = (1, 16)
    """Batch sizes, images; the last is the size of the row."""
    seconds: float = 60.0
    """Approximate duration per batch size, seconds."""

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
    """Trained network, perforated by the search and fine-tuned; `train` is the fine-tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    perforation: PerforationConfig = PerforationConfig()
    search: SearchConfig = SearchConfig()
    timing: TimingConfig = TimingConfig(batches=(1, 16, 128))


@dataclasses.dataclass(frozen=True)
class RuleConfig:
    """Perforation by rule of all layers that the paper perforates."""

    reduction: float = 2.0
    """Least factor of reduced multiply-accumulates."""
    falloff: float = 0.0
    """Power of a layer's positions by which its keep fraction falls; 0 for equal fractions."""
    kind: Literal["uniform", "grid", "regular"] = "grid"
    """Kind of masks; 'regular', every k-th row and column, is not in the paper."""
    layer: str = ""
    """Name of the only layer to perforate; empty for all."""
    rate: float = 0.0
    """Perforation rate of that layer, in [0, 1)."""

    def __post_init__(self):
        require(self.reduction >= 1, "rule.reduction", self.reduction, "a factor of 1 or more")
        require(0 <= self.falloff <= 1, "rule.falloff", self.falloff, "a power from 0 to 1")
        require(0 <= self.rate < 1, "rule.rate", self.rate, "a perforation rate in [0, 1)")


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
    """Validation images for the errors of a network perforated by rule."""

    name: str = "imagenet"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    eval_batch_size: int = 50
    """Images per batch."""
    test_limit: int = 0
    """Number of test images, from the first; 0 for all."""

    def __post_init__(self):
        size, limit = self.eval_batch_size, self.test_limit
        require(size > 0, "data.eval-batch-size", size, "a positive number")
        require(limit >= 0, "data.test-limit", limit, "0 or more images")


@dataclasses.dataclass(frozen=True)
class ReadingConfig:
    """Pipeline of the validation images."""

    input_workers: int = 0
    """Number of decoding processes; 0 for threads alone."""
    input_threads: int = 16
    """Number of decoding threads per process."""
    input_prefetch: int = 2
    """Number of prefetched batches."""

    def __post_init__(self):
        for field, least in (("input_workers", 0), ("input_threads", 1), ("input_prefetch", 1)):
            value = getattr(self, field)
            require(value >= least, "run." + field.replace("_", "-"), value, f"{least} or more")


@dataclasses.dataclass(frozen=True)
class RuledConfig:
    """Network perforated by rule and timed, without training."""

    data: ValidationConfig = ValidationConfig()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    run: ReadingConfig = ReadingConfig()
    perforation: PerforationConfig = PerforationConfig()
    rule: RuleConfig = RuleConfig()
    timing: TimingConfig = TimingConfig()

    @property
    def needs_data(self) -> bool:
        """True if the run measures errors; costs need neither data nor trained weights."""
        return bool(self.perforation.source)


@dataclasses.dataclass(frozen=True)
class LayerConfig:
    """Layer to perforate at several rates with one kind of mask."""

    name: str = "conv2"
    """Name of the layer."""
    kind: MaskKind = "impact"
    """Kind of mask."""
    rates: tuple[float, ...] = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6, 7 / 8, 9 / 10)
    """Perforation rates, in (0, 1) and increasing."""
    impact_on: Literal["perforated", "original"] = "original"
    """Network whose impacts are computed: perforated at the previous rate, or the original."""
    images: int = 10000
    """Number of training images of the loss."""
    impact_images: int = 5000
    """Number of training images of the impacts."""
    batch_size: int = 128
    """Images per batch."""

    def __post_init__(self):
        if any(not 0 < rate < 1 for rate in self.rates) or list(self.rates) != sorted(self.rates):
            raise UserError(
                f"--layer.rates is {self.rates!r}; expected increasing numbers in (0, 1)"
            )
        for name in ("images", "impact_images", "batch_size"):
            value = getattr(self, name)
            require(value > 0, "layer." + name.replace("_", "-"), value, "a positive number")


@dataclasses.dataclass(frozen=True)
class SourceDataConfig:
    """Data of the trained network, normalised as in its training."""

    name: str = "cifar10"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    pixel_scale: float = 255.0
    """Divisor of pixel values."""
    centre: Literal["none", "channel", "pixel"] = "pixel"
    """Subtracted mean of the training set: none, per channel, or per pixel."""
    standardise: bool = True
    """Division by the training set's standard deviation per channel."""
    per_image: bool = False
    """Standardisation of every image to mean 0 and deviation 1."""
    train_limit: int = 0
    """Number of training images, from the first; 0 for all."""
    test_limit: int = 0
    """Number of test images, from the first; 0 for all."""

    def __post_init__(self):
        require(self.pixel_scale > 0, "data.pixel-scale", self.pixel_scale, "a positive number")
        require(self.train_limit >= 0, "data.train-limit", self.train_limit, "0 or more images")
        require(self.test_limit >= 0, "data.test-limit", self.test_limit, "0 or more images")


@dataclasses.dataclass(frozen=True)
class SingleLayerConfig:
    """Layer of a trained network under one kind of mask, without training."""

    data: SourceDataConfig = SourceDataConfig()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    perforation: PerforationConfig = PerforationConfig()
    layer: LayerConfig = LayerConfig()
    timing: TimingConfig = TimingConfig(batches=(16,))


@dataclasses.dataclass(frozen=True)
class TradeoffConfig:
    """Points of the curves of perforation, larger stride and smaller input."""

    keeps: tuple[float, ...] = (0.75, 0.5, 0.35, 0.25)
    """Keep fractions of all perforated layers, and of all layers with a larger stride."""
    sizes: tuple[int, ...] = (28, 24, 20, 16)
    """Sides of smaller input images, pixels."""
    kind: MaskKind = "impact"
    """Kind of masks of perforation."""
    search: Annotated[str, RunInputField(part="search")] = ""
    """Run of a row of Table 3 whose search gives the masks; empty for masks of `kind`."""
    impact_images: int = 5000
    """Number of training images of the impacts."""
    batch_size: int = 128
    """Images per batch of the impacts."""

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
    """Perforation, larger stride and smaller input of a network; `train` is the fine-tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    perforation: PerforationConfig = PerforationConfig()
    tradeoff: TradeoffConfig = TradeoffConfig()
    timing: TimingConfig = TimingConfig(batches=(128,))
