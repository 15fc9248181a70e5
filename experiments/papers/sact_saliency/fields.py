"""Groups of flags, and the configurations of the experiments."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from adaptive_nets.data.splits import Dataset
from adaptive_nets.training.config import require
from adaptive_nets.training.ranges import (
    Count,
    EvalBatch,
    FlagGroup,
    InsideUnit,
    Positive,
    Range,
    Size,
)
from experiments.suite.run_inputs import RunInputField


@dataclasses.dataclass(frozen=True)
class FixationsConfig(FlagGroup, flags="fixations"):
    """Pictures and the fixations on them."""

    name: Literal["cat2000", "mit1003", "generated"] = "cat2000"
    """Set of pictures: in the data root, or generated to try the command."""
    limit: Size = 0
    """Number of pictures, equally many of each category; 0 for all."""
    rule: Literal["drawn", "top", "peaks"] = "drawn"
    """Rule that derives single fixations where only blurred maps are published: drawn from the map,
    the pixels at its top, or its local maxima."""
    count: Annotated[int, Range(1, 10**6)] = 100
    """Number of fixations that are drawn from a blurred map."""
    share: InsideUnit = 0.05
    """Share of the pixels at the top of a blurred map."""
    radius: Annotated[int, Range(1, 10**4)] = 10
    """Half of the window of a local maximum, pixels."""
    others: Count = 10
    """Number of other pictures whose fixations are the negatives of the shuffled AUC."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(FlagGroup, flags="network"):
    """Network of adaptive depth."""

    source: Annotated[str, RunInputField("required", random=True)] = ""
    """Trained network: a run, a weights file, or 'random' to try the command."""
    name: str = "resnet101_sact"
    """Name of the network in a weights file of another tool, see 'adaptive-nets models'."""


@dataclasses.dataclass(frozen=True)
class PicturesConfig(FlagGroup, flags="pictures"):
    """Size of the pictures that the network sees."""

    longer_side: Annotated[int, Range(1, 2**15)] = 320
    """Longer side in pixels; proportions are kept."""
    multiple: Annotated[int, Range(1, 1024)] = 4
    """Sides are rounded to multiples of this number; larger ones make fewer sizes to compile."""
    batch_size: EvalBatch = 4
    """Pictures at a time."""


Shares = Annotated[tuple[float, ...], Range(0, 1, least=1)]
Weights = Annotated[tuple[float, ...], Range(0, 1e6, least=1)]


@dataclasses.dataclass(frozen=True)
class SmoothingConfig(FlagGroup, flags="smoothing"):
    """Candidates of the two parameters of a saliency map."""

    sigmas: Shares = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16)
    """Standard deviations of the blur, as shares of the longer side."""
    centre_weights: Weights = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 16.0)
    """Weights of the centre bias; 0, the ponder map alone, is one of them."""
    centre_width: Positive = 0.25
    """Standard deviations of the centre bias, as a share of height and width."""

    def __post_init__(self):
        super().__post_init__()
        require(
            0.0 in self.centre_weights,
            "smoothing.centre-weights",
            self.centre_weights,
            "numbers with 0 among them, for the ponder map alone",
        )


@dataclasses.dataclass(frozen=True)
class HalvesConfig(FlagGroup, flags="halves"):
    """Division into a half that selects the parameters and one that reports."""

    rule: Literal["first", "random"] = "random"
    """first: the first half of each category selects; random: random halves."""
    repeats: Annotated[int, Range(1, 1000)] = 5
    """Number of random divisions."""


@dataclasses.dataclass(frozen=True)
class CentreConfig:
    """Centre baseline, without a network."""

    fixations: FixationsConfig = dataclasses.field(default_factory=FixationsConfig)
    smoothing: SmoothingConfig = dataclasses.field(default_factory=SmoothingConfig)
    halves: HalvesConfig = dataclasses.field(default_factory=HalvesConfig)

    def read_data(self, *, root: Path | None) -> Dataset:
        """Finds the pictures in the data root; each is decoded when it is measured.

        Raises:
            UserError: they are absent, partial or damaged.
        """
        from adaptive_nets.data.fixations import GeneratedFixations, load_fixations

        name, limit = self.fixations.name, self.fixations.limit
        found = GeneratedFixations() if name == "generated" else load_fixations(name, root=root)
        if limit:
            found = found.first(limit)
        return Dataset(
            name=name,
            source="generated" if name == "generated" else "files",
            location=found.location,
            num_classes=0,
            class_names=(),
            train=None,
            test=None,
            fingerprint=found.fingerprint(),
            complete=found.complete,
            streams={"train": found},
        )


@dataclasses.dataclass(frozen=True)
class SaliencyConfig(CentreConfig):
    """Ponder maps of a trained network as saliency."""

    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    pictures: PicturesConfig = dataclasses.field(default_factory=PicturesConfig)
