"""The experiments of the paper: what is run, at which size."""

from __future__ import annotations

from experiments.experiment import Bound, Experiment
from experiments.sact import recipes

RUNNER = "experiments.sact.experiment:run"

EXPERIMENTS = (
    Experiment(
        id="sact.baseline.resnet32",
        title="plain ResNet-32 on CIFAR-10, trained as the adaptive ones",
        row="baseline.resnet32",
        presets=recipes.presets(
            recipes.cifar("resnetv2_32_cifar10"),
            quick="900 steps",
            bounds=(Bound("test_accuracy", 91, 94),),
        ),
        runner=RUNNER,
        data="cifar10",
    ),
)
