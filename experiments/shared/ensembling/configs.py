"""Groups of flags of experiments that evaluate a trained network."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

from adaptive_nets.training.config import require
from adaptive_nets.training.ranges import Count, EvalBatch, FlagGroup, Range, Size
from experiments.suite.run_inputs import RunInputField

Weights = Annotated[str, RunInputField("required", random=True)]
"""Trained network: a run, a weights file, or 'random' to try the command."""


@dataclasses.dataclass(frozen=True)
class ImagesConfig(FlagGroup, flags="data"):
    """Images to predict. The network's own normalisation applies."""

    name: str = "cifar10"
    """Name of the data set; 'adaptive-nets data list' shows all."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data; 'auto' for the first of the other three that is present."""
    eval_batch_size: EvalBatch = 500
    """Images at a time; random parts of views depend on it."""
    train_limit: Size = 0
    """Number of training images, from the first; 0 for all."""
    test_limit: Size = 0
    """Number of test images, from the first; 0 for all."""


@dataclasses.dataclass(frozen=True)
class CalibrationConfig(FlagGroup, flags="calibration"):
    """Cross-validation of the temperature on the test set."""

    folds: Annotated[int, Range(2, 1000)] = 2
    """Number of folds; the temperature of a fold is fitted on the others."""
    repeats: Count = 5
    """Number of random divisions into folds."""


@dataclasses.dataclass(frozen=True)
class ViewsConfig(FlagGroup, flags="views"):
    """Random views that predictions are averaged over."""

    counts: Annotated[tuple[int, ...], Range(1, 100000, least=1)] = (1, 2, 5, 10, 20, 50, 100)
    """Numbers of views that are measured, increasing."""
    padding: Annotated[int, Range(0, 1024)] = 4
    """Black pixels on each side before the random crop."""

    def __post_init__(self):
        super().__post_init__()
        require(
            list(self.counts) == sorted(set(self.counts)),
            "views.counts",
            self.counts,
            "increasing numbers",
        )
