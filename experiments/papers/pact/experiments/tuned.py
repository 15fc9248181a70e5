"""Runs one seed of the second stage: a trained plain network gets latent depth, for several τ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.shifted_depth import unwrapped
from adaptive_nets.training.task import Task
from experiments.papers.pact.experiments.latent import (
    latent_task,
    model_overrides,
)
from experiments.papers.pact.measures import measure_all_modes, mode_metrics
from experiments.shared.adaptive_depth.configs import (
    LatentConfig,
    LatentTrainConfig,
    TunedLatentTrainConfig,
)
from experiments.shared.adaptive_depth.tuning import Method, tune_each
from experiments.suite.experiment import Outcome


def run(
    config: TunedLatentTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Tunes and measures one network for each tau; see `experiments.suite.experiment.Runner`."""

    def make_task(values: TrainConfig, halting: LatentConfig) -> Task:
        return latent_task(LatentTrainConfig(values, halting), dataset, seed=seed)

    def measure(task: Task, result: Any, images: Any) -> Any:
        uses = measure_all_modes(
            unwrapped(task.model), result.state.eval_variables, images,
            batch_size=config.train.data.eval_batch_size, seed=seed,
        )  # fmt: skip
        return uses["thresholded"], mode_metrics(uses)

    return tune_each(
        Method("pact", make_task, measure, model_overrides), config.train, config.halting,
        dataset=dataset, directory=directory, seed=seed, progress=progress, title=title,
    )  # fmt: skip
