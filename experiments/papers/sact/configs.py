"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from adaptive_nets.training.config import ModelConfig, TrainConfig
from experiments.papers.sact.fields import (
    EqualFlopsConfig,
    EqualFlopsTrainConfig,
    PretrainedScoresConfig,
    PretrainedScoresTrainConfig,
    TunedScoresConfig,
    TunedScoresTrainConfig,
)
from experiments.shared.adaptive_depth import recipes
from experiments.shared.adaptive_depth.budget_configs import budget_experiment
from experiments.shared.adaptive_depth.configs import (
    ScoresConfig,
    ScoresTrainConfig,
)
from experiments.suite.experiment import Bound, Experiment

RUNNER = "experiments.papers.sact.experiment:run"

_TITLES = {"act": "depth per image (ACT)", "sact": "depth at every position (SACT)"}


def _adaptive(
    rule: str, depth: int, tau: float, *, row: str, bounds: tuple[Bound, ...] = (), **lengths: Any
) -> Experiment:
    """Defines training of a network of adaptive depth on CIFAR-10."""
    config = ScoresTrainConfig(
        recipes.cifar(f"resnet{depth}_{rule}_cifar10"), ScoresConfig(tau=tau)
    )
    return Experiment(
        id=f"sact.{row}",
        # The paper's Table 1 is of COCO; these rows are of its authors' repository.
        aliases=(f"sact.{row.replace('cifar10.', 'table1.')}",),
        title=f"ResNet-{depth} on CIFAR-10, {_TITLES[rule]}, tau {tau:g}",
        row=row,
        presets=recipes.presets(config, bounds=bounds, **lengths),
        runner=RUNNER,
        data="cifar10",
        measures=("test_accuracy", "flops", "flops_std"),
        recipe=("halting.tau_ramp",),
    )


def _plain(depth: int, *, bounds: tuple[Bound, ...] = (), **lengths: Any) -> Experiment:
    """Defines training of the same network without halting."""
    return Experiment(
        id=f"sact.baseline.resnet{depth}",
        title=f"plain ResNet-{depth} on CIFAR-10, trained like the adaptive ones",
        row=f"baseline.resnet{depth}",
        presets=recipes.presets(
            recipes.cifar(f"resnetv2_{depth}_cifar10"), bounds=bounds, **lengths
        ),
        runner=RUNNER,
        data="cifar10",
        measures=("test_accuracy", "flops"),
    )


_EQUAL_FLOPS = (
    "The numbers of units are those that a run measured, rounded, or, for a published cost without "
    "numbers of units, of the plain network nearest to it with all blocks shrunk equally.",
)


def _equal_flops(
    config: TrainConfig, row: str, title: str, *, units: tuple[int, ...], **options: Any
) -> Experiment:
    """Defines training of a plain network with the cost of a network of adaptive depth."""
    smoke = {"baseline": EqualFlopsConfig(units=units or (2, 2, 2))}
    smoke |= options.pop("smoke_groups", {})
    deviations = options.pop("deviations", ())
    published = {"flops": "the published cost, to which the units are chosen"} if units else {}
    return Experiment(
        id=f"sact.baseline.{row}",
        title=title,
        row=f"baseline.{row}",
        presets=recipes.presets(
            EqualFlopsTrainConfig(config, EqualFlopsConfig(units=units)),
            smoke_groups=smoke,
            **options,
        ),
        runner=RUNNER,
        data=config.data.name,
        deviations=(*_EQUAL_FLOPS, *deviations),
        measures=tuple(published),
        chosen=published,
        recipe=("baseline.like", "baseline.units"),
    )


# ImageNet: updates of the authors' 50 workers are asynchronous.
_IMAGENET = (
    "Updates are synchronous, one batch of 32 at a time; the authors' are asynchronous, by 50 "
    "workers with batches of 32.",
    "The classifier has 1,000 outputs instead of 1,001, of which one is the background.",
    "Photographs are resized bilinearly; the authors draw one of four methods for each image.",
)
_IMAGENET_QUICK: dict[str, Any] = {"quick": "2000 steps", "test_limit": 2000}


def _imagenet_smoke(model: str) -> dict[str, Any]:
    """Returns groups of the preset smoke: four photographs at a time, the smallest network."""
    small = dataclasses.replace(
        recipes.IMAGENET_DATA, batch_size=4, eval_batch_size=4, train_limit=8, test_limit=8
    )
    return {"data": small, "model": ModelConfig(name=model)}


def _imagenet_plain() -> Experiment:
    """Defines the first stage: training of the plain network on ImageNet."""
    return Experiment(
        id="sact.baseline.imagenet-resnet101",
        title="plain ResNet-101 on ImageNet, from which the adaptive ones start",
        row="baseline.imagenet-resnet101",
        presets=recipes.presets(
            recipes.imagenet("resnetv2_101"),
            smoke_groups=_imagenet_smoke("resnetv2_50"),
            **_IMAGENET_QUICK,
        ),
        runner=RUNNER,
        data="imagenet",
        deviations=_IMAGENET,
        measures=("top1", "top5", "flops"),
    )


def _imagenet_adaptive(rule: str, tau: float, row: str) -> Experiment:
    """Defines the second stage: training of a network of adaptive depth from the plain one."""
    halting = PretrainedScoresConfig(tau=tau)
    smoke = _imagenet_smoke(f"resnet50_{rule}")
    smoke["halting"] = dataclasses.replace(halting, start_from="random")
    return Experiment(
        id=f"sact.{row}",
        title=f"ResNet-101 on ImageNet, {_TITLES[rule]}, tau {tau:g}",
        row=row,
        presets=recipes.presets(
            PretrainedScoresTrainConfig(recipes.imagenet(f"resnet101_{rule}"), halting),
            smoke_groups=smoke,
            **_IMAGENET_QUICK,
        ),
        runner=RUNNER,
        data="imagenet, and a run of sact.baseline.imagenet-resnet101",
        deviations=_IMAGENET,
        measures=("top1", "top5", "flops", "flops_std"),
        recipe=("halting.tau_ramp",),
    )


_TUNED = (
    "Trained weights of a post-activation network on CIFAR-10; the paper starts from trained "
    "weights on ImageNet only, and from scratch on CIFAR-10.",
    "Length and rates of the tuning, and the values of tau, are ours.",
)


def _tuned_for_budgets(name: str, recipe: dict[str, Any], method: str) -> Experiment:
    """Defines the second stage of ResNet-32 on CIFAR-10, of one network for all budgets."""
    config = TunedScoresTrainConfig(recipes.TUNING, TunedScoresConfig(rule="sact", **recipe))
    return Experiment(
        id=f"sact.tuned.resnet32-sact-{name}",
        aliases=(f"sact.tuned.{name}",),
        title=f"trained ResNet-32 on CIFAR-10 becomes one SACT network for all budgets{method}",
        row=f"tuned.resnet32-sact-{name}",
        presets=recipes.tuned_presets(config),
        runner="experiments.papers.sact.tuned:run",
        data="cifar10, and trained weights of the network of fixed depth",
        deviations=(
            *_TUNED,
            "Halting logits of every training image are shifted at random; the paper's are not.",
        ),
        recipe=("halting.tau_ramp", *recipes.TUNED_RECIPE),
    )


def _tuned(rule: Literal["act", "sact"]) -> Experiment:
    """Defines the second stage of ResNet-32 on CIFAR-10, for several values of tau."""
    config = TunedScoresTrainConfig(recipes.TUNING, TunedScoresConfig(rule=rule, **recipes.TUNED))
    row = f"tuned.resnet32-{rule}"
    return Experiment(
        id=f"sact.{row}",
        aliases=("sact.tuned",) if rule == "sact" else (),
        title=f"trained ResNet-32 on CIFAR-10 becomes {_TITLES[rule]}, tuned for several tau",
        row=row,
        presets=recipes.tuned_presets(config),
        runner="experiments.papers.sact.tuned:run",
        data="cifar10, and trained weights of the network of fixed depth",
        deviations=_TUNED,
        recipe=("halting.tau_ramp", *recipes.TUNED_RECIPE),
    )


EXPERIMENTS = (
    _plain(32, quick="900 steps", day="10 epochs", bounds=(Bound("test_accuracy", 91, 94),)),
    _adaptive(
        "sact",
        32,
        0.01,
        row="cifar10.r32-sact-tau1e-2",
        quick="600 steps",
        day="10 epochs",
        bounds=(Bound("test_accuracy", 91.3, 94), Bound("flops", 7.8e7, 8.7e7)),
    ),
    _adaptive("act", 32, 0.01, row="cifar10.r32-act-tau1e-2", quick="600 steps", day="10 epochs"),
    _plain(110, quick="240 steps", bounds=(Bound("test_accuracy", 92.5, 95),)),
    _adaptive("sact", 110, 0.001, row="cifar10.r110-sact-tau1e-3", quick="180 steps"),
    _adaptive(
        "act",
        110,
        0.001,
        row="cifar10.r110-act-tau1e-3",
        quick="180 steps",
        bounds=(Bound("test_accuracy", 93.3, 95),),
    ),
    _equal_flops(
        recipes.cifar("resnetv2_32_cifar10"),
        "resnet32-equal-flops",
        "plain network on CIFAR-10 with the FLOPs of ResNet-32 SACT, tau 0.01",
        units=(3, 3, 3),
        quick="600 steps",
    ),
    _equal_flops(
        recipes.cifar("resnetv2_110_cifar10"),
        "resnet110-equal-flops",
        "plain network on CIFAR-10 with the FLOPs of a run of ResNet-110 of adaptive depth",
        units=(),
        quick="180 steps",
    ),
    _tuned("sact"),
    _tuned("act"),
    _tuned_for_budgets("shifted", recipes.SHIFTED, ", by random shifts"),
    _tuned_for_budgets("budgets", recipes.BUDGETS, ", by random shifts with a tau of each"),
    budget_experiment("sact", "sact"),
    _imagenet_plain(),
    _imagenet_adaptive("sact", 0.005, "imagenet.r101-sact-tau5e-3"),
    _imagenet_adaptive("act", 0.005, "imagenet.r101-act-tau5e-3"),
    _equal_flops(
        recipes.imagenet("resnetv2_101"),
        "imagenet-resnet101-equal-flops",
        "plain network on ImageNet with the FLOPs of ResNet-101 SACT, tau 0.005",
        units=(2, 3, 16, 2),
        smoke_groups={
            **_imagenet_smoke("resnetv2_50"),
            "baseline": EqualFlopsConfig(units=(1, 1, 2, 1)),
        },
        deviations=_IMAGENET,
        **_IMAGENET_QUICK,
    ),
)
