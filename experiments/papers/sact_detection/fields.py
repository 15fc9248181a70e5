"""Groups of flags, and the configurations of the experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from adaptive_nets.data.splits import Dataset
from adaptive_nets.training.config import TrainConfig, require
from adaptive_nets.training.ranges import (
    Count,
    FlagGroup,
    InsideUnit,
    Moment,
    NonNegative,
    Range,
)
from experiments.suite.config import Training
from experiments.suite.run_inputs import RunInputField

if TYPE_CHECKING:
    from adaptive_nets.data.boxes import Resize
    from adaptive_nets.detection import DetectorSettings

Pixels = Annotated[int, Range(1, 2**15)]
Lengths = Annotated[tuple[float, ...], Range(1e-3, 1e5, least=1)]


@dataclasses.dataclass(frozen=True)
class ImagesConfig(FlagGroup, flags="images"):
    """Splits, and sizes of the photographs that the detector sees."""

    train: tuple[str, ...] = ("train",)
    """Splits of the data set that are trained on; images without an object are left out."""
    test: str = "val"
    """Split that is measured."""
    short: Pixels = 600
    """Shorter side of the photographs in pixels, unless the longer one would be too long."""
    long: Pixels = 1000
    """Most pixels of the longer side; proportions are kept."""
    multiple: Annotated[int, Range(1, 1024)] = 32
    """Stride of the backbone: sides are padded to multiples of it, and images are no smaller."""
    flip: bool = True
    """Mirror half of the training images with their boxes."""
    generated: bool = False
    """Generated pictures with rectangles in place of the data set, to try the command."""

    def __post_init__(self):
        super().__post_init__()
        require(
            self.short <= self.long,
            "images.long",
            self.long,
            f"at least {self.short}, the shorter side",
        )

    @property
    def resize(self) -> Resize:
        """Sizes of the photographs."""
        from adaptive_nets.data.boxes import Resize

        return Resize(self.short, self.long)


@dataclasses.dataclass(frozen=True)
class DetectorConfig(FlagGroup, flags="detector"):
    """Anchors, proposals, regions and detections."""

    anchor_sizes: Lengths = (64.0, 128.0, 256.0, 512.0)
    """Square roots of the anchors' areas, pixels of the resized image."""
    aspect_ratios: Lengths = (0.5, 1.0, 2.0)
    """Height over width of the anchors."""
    channels: Count = 512
    """Width of the 3x3 convolution of the region proposal network."""
    stride: Annotated[int, Range(1, 64)] = 1
    """Positions of the shared map, along an axis, for each one with anchors."""
    candidates: Count = 2000
    """Anchors of largest score before suppression."""
    proposals: Count = 300
    """Proposals of an image, regions of the last block."""
    anchor_samples: Count = 256
    """Anchors of an image in the loss."""
    region_samples: Count = 64
    """Regions of an image in training."""
    crop_size: Annotated[int, Range(2, 64)] = 14
    """Side of the map that is cut out for a region."""
    score_threshold: InsideUnit = 0.05
    """Least probability of a detection that is measured."""
    limit: Count = 100
    """Most detections of an image."""
    reference: str = ""
    """Backbone whose FLOPs are 100 %; the plain form of the own backbone if empty."""

    def settings(self) -> DetectorSettings:
        """Returns the settings of the network."""
        from adaptive_nets.detection import DetectorSettings, ProposalSettings, RegionSettings

        return DetectorSettings(
            ProposalSettings(
                anchor_sizes=self.anchor_sizes,
                aspect_ratios=self.aspect_ratios,
                channels=self.channels,
                stride=self.stride,
                samples=self.anchor_samples,
                candidates=self.candidates,
                proposals=self.proposals,
            ),
            RegionSettings(crop_size=self.crop_size, samples=self.region_samples),
        )


@dataclasses.dataclass(frozen=True)
class StartConfig(FlagGroup, flags="start"):
    """Initial weights of the backbone."""

    weights: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained classification network to start from: a run, a weights file, or 'random'."""


@dataclasses.dataclass(frozen=True)
class TimingConfig(FlagGroup, flags="timing"):
    """Measurement of images per second."""

    batches: Annotated[int, Range(0, 10**6)] = 4
    """Batches that are timed for each form of the network; 0 for no timing."""


@dataclasses.dataclass(frozen=True)
class HaltingConfig(FlagGroup, flags="halting"):
    """Settings of a backbone of adaptive depth."""

    tau: NonNegative = 0.005
    """Weight of the ponder cost in the loss, per unit of depth."""
    tau_ramp: Moment = "0%"
    """Length of the linear ramp of tau from 0."""
    bias: Annotated[float, Range(-80, 80)] = -3.0
    """Initial bias of new halting logits; with low values all units run at first and learn."""
    head_norm: bool = True
    """Normalise the inputs of halting heads, as in the authors' code but not in the paper."""
    eps: InsideUnit = 0.01
    """Halting threshold: a decision halts once its scores sum to 1 - eps."""


@dataclasses.dataclass(frozen=True)
class DetectorTrainConfig:
    """Training of a detector on a backbone of fixed depth."""

    needs_data: ClassVar[bool] = False
    """Photographs with boxes are read by `read_data`, not as labelled images."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    images: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)
    start: StartConfig = dataclasses.field(default_factory=StartConfig)
    timing: TimingConfig = dataclasses.field(default_factory=TimingConfig)

    def read_data(self, *, root: Path | None) -> Dataset:
        """Finds the photographs and their boxes in the data root; they are read while training.

        Raises:
            UserError: the set is absent or damaged, a split is not in it, or an image is smaller
                than the stride.
        """
        from adaptive_nets.data.boxes import detection_dataset, load_boxes
        from experiments.papers.sact_detection.generated import generated_boxes

        data, images = self.train.data, self.images
        if images.generated:
            found = generated_boxes()
        else:
            source = "files" if data.source in ("embedded", "tfds") else data.source
            found = load_boxes(data.name, root=root, source=source)
        dataset = detection_dataset(
            found,
            images.resize,
            train=images.train,
            test=images.test,
            flip=images.flip,
            stride=images.multiple,
        )
        limits = {"train": data.train_limit, "test": data.test_limit}
        streams = {
            name: source.first(limits[name]) if 0 < limits[name] < source.size else source
            for name, source in dataset.streams.items()
        }
        if streams == dataset.streams:
            return dataset
        return dataclasses.replace(dataset, streams=streams, complete=False)


@dataclasses.dataclass(frozen=True)
class AdaptiveDetectorTrainConfig(DetectorTrainConfig):
    """Training of a detector on a backbone of adaptive depth."""

    halting: HaltingConfig = dataclasses.field(default_factory=HaltingConfig)
