"""Experiments of the paper and their presets."""

from __future__ import annotations

from experiments.shared.adaptive_depth import recipes
from experiments.shared.adaptive_depth.configs import ScoresConfig, ScoresTrainConfig
from experiments.suite.experiment import Bound, Experiment

RUNNER = "experiments.papers.sact.experiment:run"

_TITLES = {"act": "depth per image (ACT)", "sact": "depth at every position (SACT)"}


def _adaptive(
    rule: str, depth: int, tau: float, *, row: str, quick: str, bounds: tuple[Bound, ...] = ()
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
        presets=recipes.presets(config, quick=quick, bounds=bounds),
        runner=RUNNER,
        data="cifar10",
        measures=("test_accuracy", "flops", "flops_std"),
        recipe=("halting.tau_ramp",),
    )


def _plain(depth: int, *, quick: str, bounds: tuple[Bound, ...] = ()) -> Experiment:
    """Defines training of the same network without halting."""
    return Experiment(
        id=f"sact.baseline.resnet{depth}",
        title=f"plain ResNet-{depth} on CIFAR-10, trained like the adaptive ones",
        row=f"baseline.resnet{depth}",
        presets=recipes.presets(
            recipes.cifar(f"resnetv2_{depth}_cifar10"), quick=quick, bounds=bounds
        ),
        runner=RUNNER,
        data="cifar10",
        measures=("test_accuracy", "flops"),
    )


EXPERIMENTS = (
    _plain(32, quick="900 steps", bounds=(Bound("test_accuracy", 91, 94),)),
    _adaptive(
        "sact",
        32,
        0.01,
        row="cifar10.r32-sact-tau1e-2",
        quick="600 steps",
        bounds=(Bound("test_accuracy", 91.3, 94), Bound("flops", 7.8e7, 8.7e7)),
    ),
    _adaptive("act", 32, 0.01, row="cifar10.r32-act-tau1e-2", quick="600 steps"),
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
)
