"""Configuration of a network of the study: which form, which corrections, which head."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from adaptive_nets.training.config import TrainConfig, require
from adaptive_nets.training.ranges import FlagGroup, Size
from experiments.suite.config import Training

LOW_RANK = "low_rank"
BATCH_MEAN = "batch_mean_accuracy"
"""Name of the logged accuracy by the authors' average, a fraction."""


@dataclasses.dataclass(frozen=True)
class NetworkConfig(FlagGroup, flags="network"):
    """Form of the replaced layers; the defaults are those of the authors' notebooks."""

    form: Literal["code", "text"] = "code"
    """Form of 3-D convolutions and of Meta heads: as in the notebooks, or as in the article."""
    filters: Size = 0
    """Number of 3-D filters of every replaced convolution in the text form; 0 for as many as
    published."""
    groups: Size = 0
    """Channel groups of every replaced convolution, or groups of the Meta head; 0 for the published
    number."""
    meta_init: Literal["normal", "softmax", "scaled"] = "normal"
    """Weights of Meta layers: standard normal, as published; softmax over the outputs; or normal
    with deviation 1/√N."""
    scrambled: bool = True
    """Pool over groups and take groups for columns in test 2, as in the notebook."""
    head: Literal["own", "fc", "meta", "grouped", "gap", "low_rank"] = "own"
    """Head: the network's own; two dense layers; Meta; Meta's groups without the Meta layer; global
    average pooling; or two dense layers with a factorised first one."""
    rank: Size = 0
    """Rank of the first dense layer of the head low_rank."""

    def __post_init__(self):
        super().__post_init__()
        low_rank = self.head == LOW_RANK
        require(
            low_rank == (self.rank > 0),
            "network.rank",
            self.rank,
            "a rank of 1 or more" if low_rank else "0, since --network.head is not low_rank",
        )

    def changes(self) -> dict[str, Any]:
        """Returns the fields that differ from the published network."""
        published = NetworkConfig()
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != getattr(published, field.name)
        }

    def overrides(self) -> dict[str, Any]:
        """Returns the options of `create_model`; the zoo has no factorised head."""
        return {} if self.head == LOW_RANK else self.changes()


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """Training of one network of the study."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    network: NetworkConfig = NetworkConfig()
