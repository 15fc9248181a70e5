"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.pact.fields import (
    DiscontinuityConfig,
    PretrainedLatentConfig,
    PretrainedLatentTrainConfig,
    ScoreCurveConfig,
)
from experiments.shared.adaptive_depth import recipes
from experiments.shared.adaptive_depth.budget_configs import budget_experiment
from experiments.shared.adaptive_depth.configs import (
    LatentConfig,
    LatentTrainConfig,
    ScoresConfig,
    ScoresTrainConfig,
    TunedLatentConfig,
    TunedLatentTrainConfig,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Bound, Experiment, Preset

RUNNER = "experiments.papers.pact.experiments.latent:run"

# Groups of positions per axis, for 3, 48, 576 and 1344 latent variables per image.
REINFORCE_GROUPS = (1, 4, 16, 32)
RECIPE = ("halting.tau_ramp",)
# With tau 0.01, which other experiments have: `table1.r32-tau1e-2`, and SACT's own.
CURVE_TAUS = (0.001, 0.005, 0.02)
_EXPONENTS = {0.02: "2e-2", 0.01: "1e-2", 0.005: "5e-3", 0.001: "1e-3"}
_PARITY_TAU = {"act": 0.15, "pact": 0.3}

_OPEN = (
    "The paper's training recipe is unknown; ours is that of the authors' code for SACT.",
    "The temperature is 2/3, the usual value for binary Concrete variables; the paper's is "
    "unknown.",
    "The residual of a relaxed unit is multiplied by the soft mask of positions that have not "
    "halted; the paper's rule is unknown.",
)
_SMALL = (
    "The network is ours: two units per block and half the channels.",
    "The reward baseline is an exponential moving average; the paper's is unknown.",
)
_TRAINED_WEIGHTS = (
    "Trained weights of a post-activation network; the paper's networks are trained from scratch.",
)
_CURVE = ("The values of tau along the paper's curve are unknown; these are ours.",)


def _latent(
    depth: int, tau: float, *, bounds: tuple[Bound, ...] = (), **lengths: Any
) -> Experiment:
    """Defines relaxed training of a network on CIFAR-10."""
    row = f"table1.r{depth}-tau{_EXPONENTS[tau]}"
    config = LatentTrainConfig(recipes.cifar(f"resnet{depth}_pact_cifar10"), LatentConfig(tau=tau))
    return Experiment(
        id=f"pact.{row}",
        title=f"ResNet-{depth} on CIFAR-10, depth as a latent variable (PACT), tau {tau:g}",
        row=row,
        presets=recipes.presets(config, bounds=bounds, **lengths),
        runner=RUNNER,
        data="cifar10",
        deviations=_OPEN,
        measures=("mode_gap",),
        recipe=RECIPE,
    )


def _presets(config: Any, *, quick: str) -> dict[str, Preset]:
    """Builds the presets of a figure's point; quick takes batches of 64 images."""
    sizes = recipes.presets(config, quick=quick, test_limit=2000)
    brief = sizes["quick"].config
    data = dataclasses.replace(brief.train.data, batch_size=64)
    sizes["quick"] = Preset(config_lib.replace_groups(brief, data=data))
    return sizes


def _latents(groups: int) -> int:
    """Returns the number of latent variables of maps of 32, 16 and 8 positions per axis."""
    return sum(min(groups, side) ** 2 for side in (32, 16, 8))


def _estimator(estimator: Literal["relaxation", "reinforce"], groups: int) -> Experiment:
    """Defines one point of the figure of estimators over the number of latent variables."""
    halting = LatentConfig(tau=0.01, groups=groups, estimator=estimator, units=2, width=8)
    config = LatentTrainConfig(recipes.cifar("resnet32_pact_cifar10"), halting)
    latents = _latents(groups)
    row = f"figure.{estimator}-{latents}"
    sizes = _presets(config, quick="600 steps")
    return Experiment(
        id=f"pact.{row}",
        title=f"{latents} latent variables, {estimator}",
        row=row,
        presets=sizes,
        runner=RUNNER,
        data="cifar10",
        deviations=(*_OPEN, *_SMALL),
        measures=("latents",),
        chosen={"latents": "a setting of the experiment"},
        recipe=RECIPE,
    )


def _trained(estimator: Literal["relaxation", "reinforce"], groups: int) -> Experiment:
    """Defines the same from the weights of a trained ResNet-32."""
    tuning = recipes.TUNING
    train = dataclasses.replace(
        tuning,
        model=ModelConfig(name="resnetv1_32_pact_cifar10"),
        optimiser=dataclasses.replace(tuning.optimiser, learning_rate=0.02),
        schedule=dataclasses.replace(tuning.schedule, length="1 epochs"),
    )
    halting = PretrainedLatentConfig(tau=0.05, bias=-1.0, groups=groups, estimator=estimator)
    config = PretrainedLatentTrainConfig(train, halting)
    row = f"trained.{estimator}-{_latents(groups)}"
    sizes = recipes.presets(
        config, quick="150 steps", test_limit=2000,
        smoke_groups={
            "model": ModelConfig(name="resnetv1_20_pact_cifar10"),
            "halting": dataclasses.replace(halting, start_from="random"),
        },
    )  # fmt: skip
    return Experiment(
        id=f"pact.{row}",
        title=f"{_latents(groups)} latent variables, {estimator}, from a trained ResNet-32",
        row=row,
        presets=sizes,
        runner=RUNNER,
        data="cifar10, and trained weights of the network of fixed depth",
        deviations=(*_OPEN, *_TRAINED_WEIGHTS, _SMALL[-1]),
        measures=("latents",),
        chosen={"latents": "a setting of the experiment"},
        recipe=RECIPE,
    )


def _curve(rule: Literal["pact", "sact"], tau: float) -> Experiment:
    """Defines one point of the FLOPs-accuracy curve of ResNet-32."""
    train = recipes.cifar(f"resnet32_{rule}_cifar10")
    config = (
        LatentTrainConfig(train, LatentConfig(tau=tau))
        if rule == "pact"
        else ScoresTrainConfig(train, ScoresConfig(tau=tau))
    )
    row = f"curve.r32-{rule}-tau{_EXPONENTS[tau]}"
    sizes = _presets(config, quick="200 steps")
    return Experiment(
        id=f"pact.{row}",
        title=f"ResNet-32 on CIFAR-10, {rule.upper()}, tau {tau:g}: a point of the curve",
        row=row,
        presets=sizes,
        runner=RUNNER if rule == "pact" else "experiments.shared.adaptive_depth.scores:run",
        data="cifar10",
        deviations=(*(_OPEN if rule == "pact" else ()), *_CURVE),
        recipe=RECIPE,
    )


def _discontinuity() -> Experiment:
    """Defines the figure of ACT's ponder cost over its first score, which needs no training."""

    def preset(points: int) -> Preset:
        return Preset(DiscontinuityConfig(curve=ScoreCurveConfig(points=points)))

    return Experiment(
        id="pact.discontinuity.ponder-cost",
        title="ponder cost of ACT jumps in a score; the expected number of units does not",
        row="discontinuity.ponder-cost",
        presets={"smoke": preset(101), "quick": preset(1001), "paper": preset(10001)},
        runner="experiments.papers.pact.experiments.discontinuity:run",
        data="none",
    )


def _parity(rule: str) -> Experiment:
    """Defines running parity, which measures ponder time per time step."""
    train = TrainConfig(
        data=DataConfig(
            name="parity", batch_size=128, eval_batch_size=1000, pixel_scale=1.0, centre="none"
        ),
        model=ModelConfig(name=f"rnn_{rule}_parity"),
        optimiser=OptimiserConfig(name="adam", learning_rate=2e-3, clip_norm=1.0),
        schedule=ScheduleConfig(length="6000 steps", kind="cosine", hold="50%"),
        run=RunConfig(log_every="2%", eval_every="10%", checkpoint_every="25%"),
    )
    depth: dict[str, Any] = {"tau": _PARITY_TAU[rule], "tau_ramp": "50%", "bias": -1.0}
    config = (
        ScoresTrainConfig(train, ScoresConfig(**depth))
        if rule == "act"
        else LatentTrainConfig(train, LatentConfig(**depth))
    )
    row = f"recurrent.parity-{rule}"
    return Experiment(
        id=f"pact.{row}",
        title=f"running parity by a recurrent network with {rule.upper()}",
        row=row,
        presets=recipes.presets(config, quick="6000 steps", bounds=(Bound("error", 0, 10),)),
        runner="experiments.papers.pact.experiments.recurrent:run",
        data="synthetic",
        deviations=(
            "The paper reports no experiment with the recurrent form that it describes; the task "
            "is a smaller one of graves2016.",
        ),
    )


def _tuned() -> Experiment:
    """Defines the second stage of ResNet-32 on CIFAR-10, for several values of tau."""
    config = TunedLatentTrainConfig(recipes.TUNING, TunedLatentConfig(**recipes.TUNED))
    return Experiment(
        id="pact.tuned.resnet32",
        aliases=("pact.tuned",),
        title="trained ResNet-32 on CIFAR-10 gets latent depth (PACT), tuned for several tau",
        row="tuned.resnet32",
        presets=recipes.tuned_presets(config),
        runner="experiments.papers.pact.experiments.tuned:run",
        data="cifar10, and trained weights of the network of fixed depth",
        deviations=(
            *_OPEN,
            *_TRAINED_WEIGHTS,
            "Length and rates of the tuning, and the values of tau, are ours.",
        ),
        recipe=(*RECIPE, *recipes.TUNED_RECIPE),
    )


EXPERIMENTS = (
    _latent(32, 0.01, quick="600 steps", day="10 epochs", bounds=(Bound("mode_gap", 0, 0.5),)),
    _latent(110, 0.001, quick="150 steps", bounds=(Bound("mode_gap", 0, 0.5),)),
    *(
        _estimator(estimator, groups)
        for groups in REINFORCE_GROUPS
        for estimator in ("relaxation", "reinforce")
    ),
    _tuned(),
    budget_experiment("pact", "pact"),
    *(
        _trained(estimator, groups)
        for groups in REINFORCE_GROUPS
        for estimator in ("relaxation", "reinforce")
    ),
    *(_curve(rule, tau) for tau in CURVE_TAUS for rule in ("pact", "sact")),
    _discontinuity(),
    _parity("act"),
    _parity("pact"),
)
