"""Groups of flags of the families of networks, and the configurations of their training."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from adaptive_nets.data.text import EMBEDDED, Vocabulary
from adaptive_nets.training.config import (
    DataConfig,
    MeshConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.ranges import Count, EvalBatch, FlagGroup, Range, Share, Size
from experiments.suite.config import Training

Probability = Annotated[float, Range(0, 1)]


@dataclasses.dataclass(frozen=True)
class DigitsConfig(FlagGroup, flags="images"):
    """Size and distortion of the digits."""

    padding: Annotated[int, Range(0, 16)] = 2
    """Background pixels added on each side of an image."""
    distortion: bool = False
    """Distort training images: translate, scale, squeeze and shear each one at random."""


@dataclasses.dataclass(frozen=True)
class DigitsTrainConfig:
    """Training of a network of larger images on MNIST."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    images: DigitsConfig = DigitsConfig()


@dataclasses.dataclass(frozen=True)
class NinOptions(FlagGroup, flags="network"):
    """Head, regularisation and width of a network in network."""

    head: Literal["average", "dense"] = "average"
    """Classifier on the last maps: their averages, or a dense layer on all their pixels."""
    head_dropout: Share = 0.0
    """Dropout rate of the maps before a dense head."""
    dropout_rate: Share = 0.5
    """Dropout rate after the first two poolings."""
    width: Annotated[float, Range(0, 4, open_low=True)] = 1.0
    """Factor of the number of channels of every layer but the last."""


@dataclasses.dataclass(frozen=True)
class NinTrainConfig:
    """Training of a network in network with one of several heads."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NinOptions = NinOptions()


@dataclasses.dataclass(frozen=True)
class DepthOptions(FlagGroup, flags="network"):
    """Depth and survival probabilities of a residual network."""

    depth: Size = 110
    """Number of layers, 6 n + 2."""
    last_survival: Annotated[float, Range(0, 1, open_low=True)] = 0.5
    """Probability that the last unit takes part in a step; 1 gives constant depth."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`."""
        return {"depth": self.depth, "last_survival": self.last_survival}


@dataclasses.dataclass(frozen=True)
class DepthTrainConfig:
    """Training with stochastic or constant depth."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: DepthOptions = DepthOptions()


@dataclasses.dataclass(frozen=True)
class FractalOptions(FlagGroup, flags="network"):
    """Widths and regularisation of a FractalNet."""

    columns: Annotated[int, Range(1, 8)] = 3
    """Number of columns of a block; the deepest has 2^(columns - 1) convolutions."""
    widths: Annotated[tuple[int, ...], Range(1, 4096, least=1)] = (64, 128, 256, 512, 512)
    """Channels of each block."""
    dropout_rates: Annotated[tuple[float, ...], Range(0, 1, open_high=True, least=1)] = (
        0.0, 0.1, 0.2, 0.3, 0.4,
    )  # fmt: skip
    """Dropout rate of each block."""
    local_drop_rate: Share = 0.15
    """Probability of dropping an input of a join in local drop-path."""
    global_share: Probability = 0.5
    """Share of the steps with global drop-path, a single column."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class FractalTrainConfig:
    """Training of a FractalNet."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: FractalOptions = FractalOptions()


@dataclasses.dataclass(frozen=True)
class DenseNetOptions(FlagGroup, flags="network"):
    """Depth and regularisation of a DenseNet."""

    depth: Size = 0
    """Number of layers, 3 n + 4, or 6 n + 4 with bottlenecks; 0 for that of the network's name."""
    dropout_rate: Share = 0.0
    """Dropout rate after every convolution but the first."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`."""
        depth = {"depth": self.depth} if self.depth else {}
        return {**depth, "dropout_rate": self.dropout_rate}


@dataclasses.dataclass(frozen=True)
class DenseNetTrainConfig:
    """Training of a DenseNet."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: DenseNetOptions = DenseNetOptions()


@dataclasses.dataclass(frozen=True)
class WideOptions(FlagGroup, flags="network"):
    """Form of a wide residual network of the hypernetwork paper."""

    depth: Count = 40
    """Number of layers, 6 n + 4."""
    shortcut: Literal["zeropad", "projection"] = "zeropad"
    """Shortcut of units that change the shape."""
    use_bias: bool = True
    """Add a bias to every convolution."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class WideTrainConfig:
    """Training of a wide residual network, plain or with generated kernels."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: WideOptions = WideOptions()


@dataclasses.dataclass(frozen=True)
class TextConfig(FlagGroup, flags="data"):
    """Corpus, sequences and batches."""

    name: str = EMBEDDED
    """Name of the corpus: python-topics, ptb or enwik8; files are read from the data root."""
    vocabulary: Vocabulary = "corpus"
    """Characters: those of the corpus, or newline and printable ASCII."""
    length: Count = 100
    """Predicted characters of a training sequence, which starts from a zero state."""
    batch_size: Annotated[int, Range(1, 2**16)] = 128
    """Sequences of an optimiser step."""
    eval_batch_size: EvalBatch = 128
    """Sequences of a step of evaluation, and texts read side by side in the final one."""
    train_limit: Size = 0
    """Number of training characters, from the first; 0 for all."""
    test_limit: Size = 0
    """Number of test characters, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class CharOptions(FlagGroup, flags="network"):
    """Character model; sizes of 0 are those of the published model."""

    name: str = "lstm_1000_ptb"
    """Name of the published model, such as layernorm_hyperlstm_1000_ptb."""
    hidden: Size = 0
    """Units of the recurrent layer."""
    hyper_hidden: Size = 0
    """Units of the small network of a HyperLSTM."""

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_char_model`."""
        sizes = {"hidden": self.hidden}
        if "hyper" in self.name:
            sizes["hyper_hidden"] = self.hyper_hidden
        return {name: size for name, size in sizes.items() if size}


@dataclasses.dataclass(frozen=True)
class CharConfig:
    """Training of a character model."""

    data: TextConfig = TextConfig()
    network: CharOptions = CharOptions()
    optimiser: OptimiserConfig = dataclasses.field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    def training(self) -> TrainConfig:
        """Returns the configuration of the training loop."""
        text = self.data
        data = DataConfig(
            name=text.name, batch_size=text.batch_size, eval_batch_size=text.eval_batch_size
        )
        return TrainConfig(
            data=data, optimiser=self.optimiser, schedule=self.schedule, mesh=self.mesh,
            run=self.run,
        )  # fmt: skip


ImageConfig = (
    TrainConfig
    | DigitsTrainConfig
    | NinTrainConfig
    | DepthTrainConfig
    | FractalTrainConfig
    | DenseNetTrainConfig
    | WideTrainConfig
)
"""Configuration of a network of images."""
