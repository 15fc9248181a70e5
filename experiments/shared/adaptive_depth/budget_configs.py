"""Experiment of one trained network at several budgets: its flags and presets."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from adaptive_nets.training.config import ModelConfig
from adaptive_nets.training.ranges import Count, FlagGroup, Range
from experiments.shared.ensembling.configs import ImagesConfig, Weights
from experiments.suite.experiment import Experiment, Preset
from experiments.suite.run_inputs import RunInputField

RUNNER = "experiments.shared.adaptive_depth.budget_curve:run"


@dataclasses.dataclass(frozen=True)
class BudgetsConfig(FlagGroup, flags="budget"):
    """Budgets, and the images that calibrate them."""

    shares: Annotated[tuple[float, ...], Range(0.01, 1.0, least=1)] = (0.5, 0.6, 0.7, 0.8, 0.9)
    """Budgets: shares of the plain network's FLOPs."""
    images: Count = 2000
    """Number of training images, without their labels, on which budgets are calibrated."""
    evaluations: Annotated[int, Range(2, 10000)] = 32
    """Largest number of shifts of the halting logits whose cost is measured."""


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """One network of adaptive depth at several budgets."""

    weights: Weights = ""
    """Trained network of adaptive depth: a run, a file of its folder, or 'random' to try it."""
    separate: Annotated[tuple[str, ...], RunInputField()] = ()
    """Networks tuned for one tau each, files such as tau0.3/network.safetensors of a run: each is
    compared with the one network at a budget of its FLOPs."""
    data: ImagesConfig = dataclasses.field(default_factory=ImagesConfig)
    model: ModelConfig = dataclasses.field(
        default_factory=lambda: ModelConfig(name="resnetv1_32_sact_cifar10")
    )
    budget: BudgetsConfig = BudgetsConfig()


def budget_experiment(paper: str, rule: str) -> Experiment:
    """Returns the experiment of one tuned ResNet-32 for CIFAR-10 at several budgets.

    Args:
        paper: first part of the ids of its paper.
        rule: halting rule of the network.
    """
    return Experiment(
        id=f"{paper}.budget.resnet32",
        aliases=(f"{paper}.budget",),
        title=f"one tuned ResNet-32 {rule.upper()} network on CIFAR-10 at any budget",
        row="budget.resnet32",
        presets=_presets(f"resnetv1_32_{rule}_cifar10", smoke=f"resnetv1_20_{rule}_cifar10"),
        runner=RUNNER,
        data=f"cifar10, and the networks of {paper}.tuned",
        deviations=("The paper trains one network for each τ; a budget at run time is ours.",),
        recipe=("budget.shares", "budget.images", "budget.evaluations"),
    )


def _presets(model: str, *, smoke: str) -> dict[str, Preset]:
    """Returns the presets of an experiment.

    Args:
        model: network of the measurement.
        smoke: network of the preset smoke.
    """
    config = BudgetConfig(model=ModelConfig(name=model))
    few = dataclasses.replace(
        config,
        weights="random",
        data=ImagesConfig(train_limit=16, test_limit=16, eval_batch_size=8),
        model=ModelConfig(name=smoke),
        budget=BudgetsConfig(shares=(1.0,), images=8, evaluations=3),
    )
    quick = dataclasses.replace(
        config,
        data=ImagesConfig(test_limit=2000),
        budget=BudgetsConfig(images=500),
    )
    return {"smoke": Preset(few), "quick": Preset(quick), "paper": Preset(config)}
