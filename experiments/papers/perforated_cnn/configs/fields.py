"""Configurations of the paper's experiments and their groups of fields."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from adaptive_nets.training.config import ModelConfig, PixelScale, TrainConfig, require
from adaptive_nets.training.ranges import (
    Count,
    EvalBatch,
    FlagGroup,
    Range,
    Share,
    Size,
    Threads,
    Workers,
)
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField

Device = Literal["cpu", "gpu"]
DEVICES: tuple[Device, ...] = ("cpu", "gpu")
MaskKind = Literal["uniform", "grid", "pooling", "impact", "regular"]
KINDS: tuple[MaskKind, ...] = ("uniform", "grid", "pooling", "impact")
"""Kinds of the paper; regular, every a-th row and b-th column, is not among them."""
Rates = Annotated[tuple[float, ...], Range(0, 1, open_low=True, open_high=True, least=1)]
Keeps = Annotated[tuple[float, ...], Range(0, 1, open_low=True, least=1)]


@dataclasses.dataclass(frozen=True)
class NetworkConfig(FlagGroup, flags="network"):
    """Initialisation and regularisation of the network to perforate."""

    dropout_rate: Share = 0.5
    """Dropout rate after the first two poolings."""
    kernel_init: Literal["he", "published"] = "he"
    """Distribution of initial weights: He-normal, or the authors' normal of deviation 0.05."""
    active_outputs: bool = True
    """Start with every class above 0: the last ReLU can close a class for good otherwise."""


@dataclasses.dataclass(frozen=True)
class NinConfig:
    """Training of a network in network."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()


@dataclasses.dataclass(frozen=True)
class PerforationConfig:
    """Network to perforate, and the device of its times."""

    source: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    device: Device = "cpu"
    """Device to time on; a run on another device is an error."""
    interpolation: Literal["implicit", "explicit"] = "implicit"
    """Layers read kept values through a map, or every perforated layer fills its output."""


@dataclasses.dataclass(frozen=True)
class SearchConfig(FlagGroup, flags="search"):
    """Greedy search for a perforation."""

    target: Annotated[float, Range(1, 1e6)] = 2.0
    """Factor of reduced cost at which the search ends."""
    cost: Literal["time", "macs"] = "time"
    """Cost to reduce: measured time of the whole network, or multiply-accumulates."""
    steps: Count = 50
    """Largest number of accepted steps."""
    kinds: tuple[MaskKind, ...] = ("impact",)
    """Kinds of masks to try."""
    repetitions: Annotated[int, Range(1, 1000)] = 2
    """Number of random masks per layer and kind."""
    impact_on: Literal["perforated", "original"] = "perforated"
    """Network whose impacts are computed: as perforated so far, or the original."""
    images: Count = 10000
    """Number of training images of the loss."""
    impact_images: Count = 5000
    """Number of training images of the impacts."""
    batch_size: EvalBatch = 128
    """Images per batch, also of the timed pass."""
    runs: Annotated[int, Range(3, 10**5)] = 15
    """Least number of rounds of a measured time, the whole and a perforated network in turns."""
    order: Literal["saving first", "ratio"] = "saving first"
    """Order of candidates that do not increase the loss: by their saving, or the paper's ratio."""
    begin_from: Annotated[str, RunInputField("resumed", part="search")] = ""
    """Run whose search is resumed as this run's own; empty for a new search."""

    def __post_init__(self):
        super().__post_init__()
        require(bool(self.kinds), "search.kinds", self.kinds, "at least one kind of mask")


@dataclasses.dataclass(frozen=True)
class TimingConfig(FlagGroup, flags="timing"):
    """Timing of whole networks, dense and perforated in turns."""

    batches: Annotated[tuple[int, ...], Range(1, 2**16, least=1)] = (1, 16)
    """Batch sizes, images; the last is the size of the row."""
    seconds: Annotated[float, Range(0, 1e6)] = 60.0
    """Approximate duration per batch size, seconds."""


@dataclasses.dataclass(frozen=True)
class SearchedConfig:
    """Trained network, perforated by the search and fine-tuned; `train` is the fine-tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    perforation: PerforationConfig = PerforationConfig()
    search: SearchConfig = SearchConfig()
    timing: TimingConfig = TimingConfig(batches=(1, 16, 128))

    @property
    def tuned_options(self) -> dict[str, Any]:
        """Options of the network in fine-tuning, besides those of the zoo."""
        return {}


@dataclasses.dataclass(frozen=True)
class SearchedNinConfig(SearchedConfig):
    """The same of a network in network, whose dropout rate may differ in fine-tuning."""

    network: NetworkConfig = NetworkConfig()

    @property
    def tuned_options(self) -> dict[str, Any]:
        """See `SearchedConfig`."""
        return {"dropout_rate": self.network.dropout_rate}


@dataclasses.dataclass(frozen=True)
class RuleConfig(FlagGroup, flags="rule"):
    """Perforation by rule of all layers that the paper perforates."""

    reduction: Annotated[float, Range(1, 1e6)] = 2.0
    """Least factor of reduced multiply-accumulates."""
    falloff: Annotated[float, Range(0, 1)] = 0.0
    """Power of a layer's positions by which its keep fraction falls; 0 for equal fractions."""
    kind: Literal["uniform", "grid", "regular"] = "grid"
    """Kind of masks; 'regular', every a-th row and b-th column, is not in the paper."""
    layer: str = ""
    """Name of the only layer to perforate; empty for all."""
    rate: Share = 0.0
    """Perforation rate of that layer, in [0, 1)."""


@dataclasses.dataclass(frozen=True)
class ValidationConfig(FlagGroup, flags="data"):
    """Validation images for the errors of a network perforated by rule."""

    name: str = "imagenet"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    eval_batch_size: EvalBatch = 50
    """Images per batch."""
    test_limit: Size = 0
    """Number of test images, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class ReadingConfig(FlagGroup, flags="run"):
    """Pipeline of the validation images."""

    input_workers: Workers = 0
    """Number of decoding processes; 0 for threads alone."""
    input_threads: Threads = 16
    """Number of decoding threads per process."""
    input_prefetch: Threads = 2
    """Number of prefetched batches."""


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
class LayerConfig(FlagGroup, flags="layer"):
    """Layer to perforate at several rates with one kind of mask."""

    name: str = "conv2"
    """Name of the layer."""
    kind: MaskKind = "impact"
    """Kind of mask."""
    rates: Rates = (1 / 3, 1 / 2, 2 / 3, 3 / 4, 4 / 5, 5 / 6, 7 / 8, 9 / 10)
    """Perforation rates, in (0, 1) and increasing."""
    draws: Annotated[int, Range(1, 1000)] = 5
    """Number of masks per rate: random draws, and images of the impacts."""
    impact_on: Literal["perforated", "original"] = "original"
    """Network whose impacts are computed: perforated at the previous rate, or the original."""
    images: Count = 10000
    """Number of training images of the loss."""
    impact_images: Count = 5000
    """Number of training images of the impacts."""
    batch_size: EvalBatch = 128
    """Images per batch."""

    def __post_init__(self):
        super().__post_init__()
        require(
            list(self.rates) == sorted(set(self.rates)),
            "layer.rates",
            self.rates,
            "increasing numbers in (0, 1)",
        )


@dataclasses.dataclass(frozen=True)
class SourceDataConfig(FlagGroup, flags="data"):
    """Data of the trained network, normalised as in its training."""

    name: str = "cifar10"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    pixel_scale: PixelScale = 255.0
    """Divisor of pixel values."""
    centre: Literal["none", "channel", "pixel", "middle", "source"] = "pixel"
    """Subtracted mean of the training set: none, per channel, or per pixel; middle for 127.5;
    source normalises as the network was trained."""
    standardise: bool = True
    """Division by the training set's standard deviation per channel."""
    mean: Annotated[tuple[float, ...], Range(0, 1)] = ()
    """Mean per channel of pixels in [0, 1], in place of the training set's."""
    std: Annotated[tuple[float, ...], Range(1e-6, 1e6)] = ()
    """Deviation per channel of pixels in [0, 1], in place of the training set's."""
    per_image: bool = False
    """Standardisation of every image to mean 0 and deviation 1."""
    train_limit: Size = 0
    """Number of training images, from the first; 0 for all."""
    test_limit: Size = 0
    """Number of test images, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class SingleLayerConfig:
    """Layer of a trained network under one kind of mask, without training."""

    data: SourceDataConfig = SourceDataConfig()
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    perforation: PerforationConfig = PerforationConfig()
    layer: LayerConfig = LayerConfig()
    timing: TimingConfig = TimingConfig(batches=(16,))


@dataclasses.dataclass(frozen=True)
class TradeoffConfig(FlagGroup, flags="tradeoff"):
    """Points of the curves of perforation, larger stride and smaller input."""

    keeps: Keeps = (0.75, 0.5, 0.35, 0.25)
    """Keep fractions of all perforated layers, and of all layers with a larger stride."""
    sizes: Annotated[tuple[int, ...], Range(1, 4096)] = (28, 24, 20, 16)
    """Sides of smaller input images, pixels."""
    draws: Annotated[int, Range(1, 1000)] = 3
    """Number of networks per keep fraction, with other masks, offsets of the stride and orders of
    the data; and number of tunings of the whole network."""
    kind: MaskKind = "impact"
    """Kind of masks of perforation."""
    search: Annotated[str, RunInputField(part="search")] = ""
    """Run of a row of Table 3 whose search gives the masks; empty for masks of `kind`."""
    impact_images: Count = 5000
    """Number of training images of the impacts."""
    batch_size: EvalBatch = 128
    """Images per batch of the impacts."""


@dataclasses.dataclass(frozen=True)
class TradeoffRunConfig:
    """Perforation, larger stride and smaller input of a network; `train` is the fine-tuning."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
    perforation: PerforationConfig = PerforationConfig()
    tradeoff: TradeoffConfig = TradeoffConfig()
    timing: TimingConfig = TimingConfig(batches=(128,))
