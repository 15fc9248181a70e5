"""Convergence: the first steps of networks whose convolutions start differently."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import RunConfig
from experiments.papers.dwp.configs.features import INITS, WORDS, kernels_config, smoke_preset
from experiments.papers.dwp.configs.presets import CHOSEN_BY_US, SEPARATE, WIDTHS, changed, training
from experiments.suite.experiment import Experiment, Preset

MNIST_STEPS = (25, 50, 75, 100, 150, 200, 250)
CIFAR_STEPS = (25, 50, 100, 150, 200, 300)
VAE_STEPS = (100, 200, 300, 400, 600, 800, 990)
CASES = {
    "mnist": ("ConvNet on MNIST", "mnist", "300 steps", "25 steps", "accuracy", MNIST_STEPS),
    "cifar10": ("ConvNet on CIFAR-10", "cifar10", "400 steps", "25 steps", "accuracy", CIFAR_STEPS),
    "vae": ("VAE of MNIST", "mnist", "990 steps", "100 steps", "bound", VAE_STEPS),
}
"""Case -> title, target, length, interval of evaluation, measure and steps of the paper."""

_STATED = CHOSEN_BY_US.format(
    what="batch size, rate and exact networks of these curves", is_are="are",
    values="128 images, Adam at a constant 1e-3, and the networks of few labels",
)  # fmt: skip
_OWN = {
    "mnist": ("The published curve ends at step 295, between two evaluations of ours.",),
    "cifar10": (
        "Preset day has a quarter of the widths. The published curve ends at step 390, between two "
        "evaluations of ours.",
    ),
    "vae": ("The authors' autoencoder is not released; ours is in image_vae.py.",),
}
_DRAWN = "Values of the publication are read off its figure."


def _experiment(case: str, init: str) -> Experiment:
    title, target, length, every, measure, steps = CASES[case]
    train = training(target, length, 128)
    train = dataclasses.replace(
        train,
        schedule=dataclasses.replace(train.schedule, kind="constant"),
        run=RunConfig(log_every=every, eval_every=every, checkpoint_every="20%"),
    )
    config = kernels_config(train, WIDTHS[target], init)
    narrow: dict[str, Any] = {}
    if case == "cifar10":
        narrow = {"network": {"widths": tuple(width // 4 for width in WIDTHS[target])}}
    few = {"data": {"test_limit": 2000}}
    runner = "run_vae" if case == "vae" else "run_convergence"
    return Experiment(
        id=f"dwp.convergence.{case}-{init}",
        title=f"first steps of the {title}, {WORDS[init]}",
        row=f"convergence.{case}-{init}",
        presets={
            "smoke": smoke_preset(config, target),
            "quick": Preset(changed(config, "100 steps", **few, **narrow)),
            "day": Preset(changed(config, length, **narrow), seeds=3),
            "paper": Preset(config, seeds=3),
        },
        runner=f"experiments.papers.dwp.experiments.kernels:{runner}",
        data=("mnist" if target == "mnist" else "cifar10")
        + ("" if init == "xavier" else f", and a run of dwp.priors.{target}"),
        deviations=(_STATED, *_OWN[case], _DRAWN, *(() if init == "xavier" else (SEPARATE,))),
        measures=tuple(f"{measure}.{step}" for step in steps),
    )


EXPERIMENTS = tuple(_experiment(case, init) for case in CASES for init in INITS)
