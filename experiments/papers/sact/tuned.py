"""Runs one seed of the second stage: a trained plain network gets ACT or SACT, for several τ."""

from __future__ import annotations

from pathlib import Path

from adaptive_nets.data.splits import Dataset
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.shifted_depth import unwrapped
from experiments.papers.sact.fields import TunedScoresTrainConfig
from experiments.shared.adaptive_depth.configs import ScoresTrainConfig
from experiments.shared.adaptive_depth.measures import counter, measure_usage
from experiments.shared.adaptive_depth.scores import model_overrides, scores_task
from experiments.shared.adaptive_depth.tuning import Method, tune_each
from experiments.suite.experiment import Outcome


def run(
    config: TunedScoresTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Tunes a trained plain network for each tau; see `experiments.suite.experiment.Runner`."""

    def measure(task, result, images):
        network = unwrapped(task.model)
        use = measure_usage(
            network, result.state.eval_variables, images, flops=counter(network, images),
            batch_size=config.train.data.eval_batch_size,
        )  # fmt: skip
        return use, {}

    method = Method(
        config.halting.rule,
        lambda values, halting: scores_task(ScoresTrainConfig(values, halting), dataset, seed=seed),
        measure,
        model_overrides,
    )
    return tune_each(
        method, config.train, config.halting, dataset=dataset, directory=directory, seed=seed,
        progress=progress, title=title,
    )  # fmt: skip
