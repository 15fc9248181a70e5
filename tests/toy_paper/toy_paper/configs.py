"""The experiments of the paper: one that trains, one that does not."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from adaptive_nets.training.config import RunConfig, ScheduleConfig, TrainConfig
from adaptive_nets.training.ranges import FlagGroup, Range
from experiments.suite.experiment import Bound, Experiment, Preset


@dataclasses.dataclass(frozen=True)
class PruningConfig(FlagGroup, flags="pruning"):
    """Pruning of a random matrix."""

    keep: Annotated[float, Range(0, 1, open_low=True)] = 0.25
    """Fraction of the weights that are kept."""


@dataclasses.dataclass(frozen=True)
class PrunedConfig:
    """An experiment that neither trains nor reads data."""

    pruning: PruningConfig = PruningConfig()


_RARELY = RunConfig(log_every="20%", eval_every="50%", checkpoint_every="50%", tensorboard=False)


def _trained(length: str) -> TrainConfig:
    return TrainConfig(schedule=ScheduleConfig(length=length), run=_RARELY)


EXPERIMENTS = (
    Experiment(
        id="toy.table1.small-trained",
        title="a small network, trained",
        row="table1.small-trained",
        presets={
            "smoke": Preset(_trained("8 steps")),
            "quick": Preset(_trained("16 steps"), bounds=(Bound("error", 0, 100),)),
            "paper": Preset(_trained("200 epochs"), seeds=3),
        },
        runner="toy_paper.experiment:train_small",
        data="mnist",
        deviations=("The batches are larger than the paper's.",),
    ),
    Experiment(
        id="toy.table1.small-pruned",
        title="a small matrix, pruned",
        row="table1.small-pruned",
        presets={
            "smoke": Preset(PrunedConfig(), bounds=(Bound("compression", 3.9, 4.1),)),
            "quick": Preset(PrunedConfig()),
            "paper": Preset(PrunedConfig(), seeds=3, bounds=(Bound("compression", 3.9, 4.1),)),
        },
        runner="toy_paper.experiment:prune",
        data="none",
        deviations=("The matrix is random.",),
        explanations={"compression": "it is a toy"},
        aliases=("toy.table1.tiny-pruned",),
    ),
)
