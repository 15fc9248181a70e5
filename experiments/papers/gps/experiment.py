"""Runs one seed: searches policies on images and evaluates them on others."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.augmentations import random_sub_policies
from adaptive_nets.data.splits import Dataset
from adaptive_nets.data.stratified import stratified_subset
from adaptive_nets.ensembling import (
    Policy,
    SubPolicy,
    load_policy,
    policy_views,
    predict_pool,
    save_policy,
    search_policy,
)
from adaptive_nets.ensembling.policies import from_arrays
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.gps.evaluation import Evaluation
from experiments.papers.gps.fields import PolicyConfig, PoolConfig
from experiments.papers.gps.measures import PolicyScores, policy_metrics
from experiments.shared.ensembling.network import (
    evaluation_split,
    load_trained,
    training_split,
)
from experiments.suite.experiment import Outcome

# Seeds of random parts: of the pool, of the grid, and of evaluations.
_POOL, _GRID, _EVALUATION = 1, 2, 3
_SEEDS = 1000


def run(
    config: PolicyConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Searches and evaluates policies; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    network = load_trained(config.weights, config.model.name, dataset, seed=seed)
    test = evaluation_split(dataset)
    batch_size = config.data.eval_batch_size
    identity = {"network": network.digest, "images": dataset.fingerprint, "count": len(test)}
    halves = config.search.images == "halves"
    searched = test if halves else training_split(dataset)
    if halves:
        masks = [
            stratified_subset(test.labels, len(test) // 2, seed=seed + i)
            for i in range(config.search.splits)
        ]
        evaluated = [~mask for mask in masks]
    else:
        masks = [stratified_subset(searched.labels, config.search.held_out, seed=seed)]
        searched = searched.replace(
            image=searched.images[masks[0]], label=searched.labels[masks[0]]
        )
        masks = [np.ones(len(searched), bool)]
        evaluated = [np.ones(len(test), bool)]
    pool = make_pool(config.pool, seed=seed)
    predict = network.predictor()
    log_probs = predict_pool(
        predict, searched.images, policy_views(pool), count=len(pool),
        path=directory / "pool.npy", seed=seed * _SEEDS + _POOL, batch_size=batch_size,
        identity={**identity, "pool": str(pool.arrays()), "searched": config.search.images},
        progress=progress, title=f"{title}: pool of {len(pool)}",
    )  # fmt: skip
    on_test = Evaluation(
        predict, test.images, batch_size, seed * _SEEDS + _EVALUATION,
        directory, identity, progress, title,
    )  # fmt: skip
    on_searched = dataclasses.replace(
        on_test, images=searched.images, seed=seed * _SEEDS + _GRID,
        identity={**identity, "searched": config.search.images},
    )  # fmt: skip
    policies, searches = [], []
    for i, mask in enumerate(masks):
        progress.start(f"{title}: search {i + 1}", done=0, total=config.search.length)
        found = search_policy(
            log_probs[:, mask], searched.labels[mask], length=config.search.length,
            criterion=config.search.criterion,
            after_step=lambda done, value: progress.update(done, {config.search.criterion: value}),
        )  # fmt: skip
        progress.finish()
        policy = dataclasses.replace(
            pool,
            sub_policies=tuple(pool.sub_policies[b] for b in found.chosen),
            note={"network": network.name, "weights": network.digest, "split": i,
                  "criterion": config.search.criterion},
        )  # fmt: skip
        save_policy(directory / f"policy{i}.json", policy)
        policies.append(policy)
        searches.append(found.scores)
    counts = config.views.counts
    crops = Policy("cifar", (SubPolicy(),))
    of_magnitude, magnitudes = _best_magnitudes(config, on_searched, searched.labels, masks, seed)
    scores = PolicyScores(test.labels, evaluated, config.calibration, seed)
    scores.add("plain", on_test.curves("plain", [Policy("cifar", (SubPolicy(crop=False),))], (1,)))
    scores.add("crops", on_test.curves("crops", [crops], counts))
    scores.add("one_magnitude", on_test.curves("one-magnitude", of_magnitude, counts, evaluated))
    scores.add("greedy", on_test.curves("greedy", policies, counts, evaluated))
    if any(not s.crop for policy in policies for s in policy.sub_policies):
        scores.add("greedy_released", on_test.curves(
            "greedy", [_always_cropped(p) for p in policies], counts, evaluated))  # fmt: skip
    for i, path in enumerate(config.transfer.policies):
        other = load_policy(path, empty=config.transfer.empty)
        name = f"given{i}"
        scores.add(name, on_test.curves(name, [other], counts), note=Path(path).name)
    if config.transfer.weights:
        other = load_trained(
            config.transfer.weights, config.transfer.name, dataset, seed=seed + 1,
            flag="transfer.weights",
        )  # fmt: skip
        there = dataclasses.replace(
            on_test, predict=other.predictor(), identity={**identity, "network": other.digest}
        )
        note = other.name
        plain = Policy("cifar", (SubPolicy(crop=False),))
        scores.add("other_plain", there.curves("other-plain", [plain], (1,)), note=note)
        scores.add("other_crops", there.curves("other-crops", [crops], counts), note=note)
        scores.add(
            "other_greedy", there.curves("other-greedy", policies, counts, evaluated), note=note
        )
    metrics = policy_metrics(scores, pool=len(pool), policies=policies, magnitudes=magnitudes)
    arrays = {**scores.arrays(), "search/scores": np.array(searches),
              "search/magnitudes": np.array(magnitudes)}  # fmt: skip
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)


def make_pool(config: PoolConfig, *, seed: int) -> Policy:
    """Draws the candidates of the search: parts of random sub-policies, and the images as they are.

    Args:
        config: sizes and magnitudes of the parts.
        seed: seed of the draw.
    """
    generator = np.random.default_rng(seed)
    parts: list[SubPolicy] = []
    for count, magnitude in zip(config.counts, config.magnitudes, strict=True):
        if count:
            parts += _random_policy(generator, count, config.operations, magnitude).sub_policies
    if config.unchanged:
        parts.append(SubPolicy(crop=False))
    return Policy("cifar", tuple(parts))


def _random_policy(
    generator: np.random.Generator, count: int, operations: int, magnitude: float
) -> Policy:
    indices, magnitudes = random_sub_policies(
        generator, count, operations=operations, magnitude=magnitude, protocol="cifar"
    )
    return from_arrays(indices, magnitudes, "cifar")


def _best_magnitudes(
    config: PolicyConfig, searched: Evaluation, labels: np.ndarray, masks: Sequence[Any], seed: int
) -> tuple[list[Policy], list[float]]:
    """Returns M* of each division, and a policy of random sub-policies of this magnitude.

    M* has the best calibrated log-likelihood over a few views of the searched images.
    """
    grid, views = config.search.grid, config.search.grid_views
    generator = np.random.default_rng(seed + _SEEDS)
    values = []
    for magnitude in grid:
        policy = _random_policy(generator, views, config.pool.operations, magnitude)
        curve = searched.curves(f"magnitude-{magnitude:g}", [policy], (views,))[0]
        scores = PolicyScores(labels, masks, config.calibration, seed)
        scores.add("grid", [curve])
        values.append(scores.calibrated("grid", views))
    best = [grid[int(i)] for i in np.argmax(np.array(values), axis=0)]
    length = max(config.views.counts)
    policies = [
        _random_policy(np.random.default_rng(seed + 2 * _SEEDS + i), length,
                       config.pool.operations, magnitude)
        for i, magnitude in enumerate(best)
    ]  # fmt: skip
    return policies, best


def _always_cropped(policy: Policy) -> Policy:
    """Returns the policy as the authors evaluate it: a crop follows an empty sub-policy too."""
    cropped = tuple(dataclasses.replace(s, crop=True) for s in policy.sub_policies)
    return dataclasses.replace(policy, sub_policies=cropped)
