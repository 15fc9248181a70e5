"""Groups of flags, and the configurations of the experiments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import ModelConfig, require
from adaptive_nets.training.ranges import Count, FlagGroup, InsideUnit, Positive, Range
from experiments.shared.ensembling.configs import (
    CalibrationConfig,
    ImagesConfig,
    ViewsConfig,
    Weights,
)


@dataclasses.dataclass(frozen=True)
class CropsConfig(ViewsConfig, flags="views"):
    """Random crops that embeddings are averaged over; half of them are mirrored."""

    counts: Annotated[tuple[int, ...], Range(1, 100000, least=1)] = (1, 2, 5, 10, 32)
    """Numbers of views that are measured, increasing."""
    smallest_area: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    """Smallest share of the image in crops that are resized; 1 crops the padded image instead."""


@dataclasses.dataclass(frozen=True)
class EmbeddingConfig(FlagGroup, flags="embedding"):
    """Embeddings and their means."""

    layer: str = "pooled"
    """Layer of the network, such as layer3_4/conv2; 'pooled' for the input of its classifier."""
    views: Count = 10
    """Views of the mean embedding that is compared in detail; one of --views.counts."""
    train: bool = True
    """Compute mean embeddings of training images too, and not only of test images."""


@dataclasses.dataclass(frozen=True)
class ProbeConfig(FlagGroup, flags="probe"):
    """Logistic regression on standardised embeddings."""

    penalties: Annotated[tuple[float, ...], Range(0, least=1)] = (1e-6, 1e-5, 1e-4, 1e-3)
    """Candidates of the L2 penalty; held-out training images decide."""
    held_out: InsideUnit = 0.1
    """Share of the training images that are held out to choose the penalty."""
    iterations: Count = 300
    """Largest number of L-BFGS iterations of a fit."""


@dataclasses.dataclass(frozen=True)
class NeighboursConfig(FlagGroup, flags="neighbours"):
    """Classification by nearest neighbours."""

    count: Count = 200
    """Number of neighbours; all of the training set if it is smaller."""
    temperature: Positive = 0.07
    """T of a neighbour's weight exp(s / T), where s is the cosine similarity."""


@dataclasses.dataclass(frozen=True)
class InterpolationConfig(FlagGroup, flags="interpolation"):
    """Interpolation between mean or single embeddings and the plain image's."""

    points: Annotated[int, Range(2, 1001)] = 11
    """Number of shares of the plain embedding, from 0 to 1."""


@dataclasses.dataclass(frozen=True)
class ProbedConfig:
    """Mean embeddings of a trained network, probed on another data set."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(default_factory=lambda: ImagesConfig(name="cifar100"))
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnet32_cifar10")
    )
    views: CropsConfig = dataclasses.field(default_factory=CropsConfig)
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)
    probe: ProbeConfig = dataclasses.field(default_factory=ProbeConfig)
    neighbours: NeighboursConfig = dataclasses.field(default_factory=NeighboursConfig)
    interpolation: InterpolationConfig = dataclasses.field(default_factory=InterpolationConfig)
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)

    def __post_init__(self):
        require(
            self.embedding.views in self.views.counts, "embedding.views", self.embedding.views,
            f"one of --views.counts, {', '.join(map(str, self.views.counts))}",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class PhotographsConfig(FlagGroup, flags="photographs"):
    """Preparation of photographs."""

    smallest_area: Annotated[float, Range(0, 1, open_low=True)] = 0.08
    """Smallest share of the photograph in random crops; aspect ratios are from 3/4 to 4/3."""
    pixels: Literal["network", "unit"] = "network"
    """Normalisation: the network's own, or 'unit' for pixels in [0, 1] and nothing else."""
    threads: Annotated[int, Range(1, 1024)] = 8
    """Threads that decode photographs."""


@dataclasses.dataclass(frozen=True)
class PhotographViewsConfig(FlagGroup, flags="views"):
    """Random crops that embeddings are averaged over; half of them are mirrored."""

    counts: Annotated[tuple[int, ...], Range(1, 100000, least=1)] = (1, 2, 5, 10, 32)
    """Numbers of views that are measured, increasing."""

    def __post_init__(self):
        super().__post_init__()
        require(
            list(self.counts) == sorted(set(self.counts)), "views.counts", self.counts,
            "increasing numbers",
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """Mean embeddings of photographs under the network's own linear head."""

    weights: Weights = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    data: ImagesConfig = dataclasses.field(
        default_factory=lambda: ImagesConfig(name="imagenet", eval_batch_size=64)
    )
    model: ModelConfig = dataclasses.field(default_factory=lambda: ModelConfig(name="resnet50"))
    photographs: PhotographsConfig = dataclasses.field(default_factory=PhotographsConfig)
    views: PhotographViewsConfig = dataclasses.field(default_factory=PhotographViewsConfig)
    calibration: CalibrationConfig = dataclasses.field(default_factory=CalibrationConfig)
