"""Runs one seed: a policy on corrupted images, beside crops and flips and the images themselves."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from adaptive_nets.data.corruptions import corrupt, load_official, unnormalised_mce
from adaptive_nets.data.corruptions.official import official_corruptions
from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling import Policy, SubPolicy, load_policy
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.gps.evaluation import Evaluation
from experiments.papers.gps.experiment import make_pool
from experiments.papers.gps.fields import CorruptedConfig, PoolConfig
from experiments.shared.ensembling.network import evaluation_split, load_trained
from experiments.shared.ensembling.scores import CLL, score
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import RANDOM


def run(
    config: CorruptedConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures errors under corruptions; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    network = load_trained(config.weights, config.model.name, dataset, seed=seed)
    policy = _policy(config, seed)
    test = evaluation_split(dataset)
    counts = config.views.counts
    folder = _official_folder(dataset)
    predict = network.predictor()
    compared = {
        "plain": (Policy("cifar", (SubPolicy(crop=False),)), (1,)),
        "crops": (Policy("cifar", (SubPolicy(),)), counts),
        "greedy": (policy, counts),
    }
    kinds, severities = config.corruption.kinds, config.corruption.severities
    shape = (len(kinds), len(severities))
    errors = {(name, count): np.zeros(shape) for name, (_, of) in compared.items() for count in of}
    likelihoods = {key: np.zeros(shape) for key in errors}
    for i, kind in enumerate(kinds):
        for j, severity in enumerate(severities):
            images = _corrupted(test.images, folder, kind, severity, config.corruption.seed)
            evaluation = Evaluation(
                predict, images, config.data.eval_batch_size, seed, directory,
                {"network": network.digest, "images": dataset.fingerprint, "kind": kind,
                 "severity": severity, "seed": config.corruption.seed, "count": len(images)},
                progress, f"{title}: {kind} {severity}",
            )  # fmt: skip
            for name, (chosen, of) in compared.items():
                for count, log_probs in evaluation.curves(name, [chosen], of)[0].items():
                    found = score(log_probs, test.labels, config.calibration, seed=seed).values
                    errors[name, count][i, j] = found["error"]
                    likelihoods[name, count][i, j] = found[CLL]
    over = len(kinds) * len(severities) * len(test)
    generated = "generated" if folder is None else "official files"
    note = f"{len(kinds)} kinds, {len(severities)} severities, {generated}"
    metrics: dict[str, Metric] = {}
    arrays: dict[str, np.ndarray] = {}
    for (name, count), values in errors.items():
        mean = unnormalised_mce(values / 100)
        metrics[f"{name}.muce.{count}"] = Metric(100 * float(mean), "%", over, note)
        metrics[f"{name}.{CLL}.{count}"] = Metric(
            float(likelihoods[name, count].mean()), "nats", over, note
        )
        arrays[f"{name}/error.{count}"] = values
        arrays[f"{name}/{CLL}.{count}"] = likelihoods[name, count]
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)


def _official_folder(dataset: Dataset) -> Path | None:
    """Returns the folder of official files beside those of the data set; None if it is absent."""
    place = Path(dataset.location)
    for root in (place, place.parent):
        if dataset.name in ("cifar10", "cifar100") and root.is_dir():
            found = official_corruptions(root, dataset.name)  # pyright: ignore[reportArgumentType]
            if found is not None:
                return found
    return None


def _policy(config: CorruptedConfig, seed: int) -> Policy:
    if config.policy == RANDOM:
        return make_pool(PoolConfig(counts=(2, 2, 1)), seed=seed)
    return load_policy(config.policy)


def _corrupted(
    images: np.ndarray, folder: Path | None, kind: str, severity: int, seed: int
) -> np.ndarray:
    """Returns corrupted test images, from official files if they are there."""
    if folder is None:
        return corrupt(images, kind, severity, seed=seed)
    return np.asarray(load_official(folder, kind, severity)[0][: len(images)])
