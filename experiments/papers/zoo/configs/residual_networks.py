"""Residual networks on CIFAR: stochastic depth, squeeze and excitation, label smoothing."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import ModelConfig, OptimiserConfig, TrainConfig
from experiments.papers.zoo.configs.cifar import NESTEROV, cifar, experiment, steps
from experiments.papers.zoo.configs.presets import OFTEN, Changes
from experiments.papers.zoo.fields import (
    DepthOptions,
    DepthTrainConfig,
    WideTrainConfig,
)
from experiments.suite.experiment import Experiment

_SGD = dataclasses.replace(NESTEROV, nesterov=False)
_HUANG = (
    "All 50,000 training images; the paper holds 5,000 of them out to choose the epoch.",
    "Test error of the last epoch instead of the epoch of lowest validation error.",
)
_WARM = ("The rate starts at 0.1; the paper starts this network at 0.01.",)


def _depth(kind: str, data: str, *, depth: int = 110) -> Experiment:
    deep = depth > 1000
    train = TrainConfig(
        data=cifar(data),
        model=ModelConfig(name=f"stochastic_depth_resnet{depth}_cifar10"),
        optimiser=NESTEROV,
        schedule=steps("300 epochs" if deep else "500 epochs"),
        run=OFTEN,
    )
    survival = 0.5 if kind == "stochastic" else 1.0
    return experiment(
        f"stochastic-depth.{kind}-{f'{depth}-' if deep else ''}{data}",
        f"ResNet-{depth} of {kind} depth",
        DepthTrainConfig(train, DepthOptions(depth=depth, last_survival=survival)),
        quick={"network": {"depth": 20}},
        smoke={"network": {"depth": 8}},
        deviations=_HUANG + (_WARM if deep else ()),
    )


def _residual(
    row: str,
    title: str,
    model: str,
    *,
    small: str,
    smoothing: float = 0.0,
    measures: tuple[str, ...] = ("error",),
    deviations: tuple[str, ...] = (),
) -> Experiment:
    data = "c100-plus" if row.endswith("c100-plus") else "c10-plus"
    train = TrainConfig(
        data=cifar(data),
        model=ModelConfig(name=model),
        optimiser=dataclasses.replace(_SGD, label_smoothing=smoothing),
        schedule=steps("64000 steps"),
        run=OFTEN,
    )
    smaller: Changes = {"model": {"name": small}}
    return experiment(
        row,
        title,
        train,
        quick=smaller,
        smoke=smaller,
        measures=measures,
        deviations=(
            "Means and deviations per channel are subtracted and divided; he2015 subtracts the "
            "mean of every pixel.",
            "All 50,000 training images; he2015 holds 5,000 of them out to choose the schedule.",
            *deviations,
        ),
    )


_SE = (
    "The paper does not state the schedule of its CIFAR networks; ours is that of he2015.",
    "Post-activation units; the paper's reference of ResNet-110 is the pre-activation paper.",
    *_WARM,
)
_SMOOTH = (
    "The paper smooths the labels of Inception networks on ImageNet; this row is the same change "
    "on CIFAR-10.",
)


def _squeeze(data: str) -> tuple[Experiment, Experiment]:
    classes = 100 if data.startswith("c100") else 10
    plain, squeezed = (
        _residual(
            f"se.{prefix.replace('_', '-')}resnet110-{data}",
            f"ResNet-110 {'with' if prefix else 'without'} squeeze and excitation",
            f"{prefix}resnet110_cifar{classes}",
            small=f"{prefix}resnet20_cifar{classes}",
            deviations=_SE,
        )
        for prefix in ("", "se_")
    )
    return plain, squeezed


def _published(depth: int) -> Experiment:
    return _residual(
        f"resnet.{depth}-c10-plus",
        f"ResNet-{depth}",
        f"resnet{depth}_cifar10",
        small="resnet20_cifar10",
        measures=("error", "params"),
        deviations=_WARM if depth >= 110 else (),
    )


_WIDE = (
    "All 50,000 training images; the paper holds 5,000 of them out.",
    "Zero-padded shortcuts and biases are inferred from the published number of parameters.",
)
_GENERATED = (
    "The rate falls by the same factor, 0.29, three times; the paper's 0.002, 0.001, 0.0002, "
    "0.00005 fall by 0.5, 0.2 and 0.25.",
    "Weight decay reaches ordinary kernels only, the paper's the generated ones too.",
)


def _wide(widening: int, *, generated: bool) -> Experiment:
    if generated:
        optimiser = OptimiserConfig(learning_rate=2e-3, weight_decay=5e-6)
        schedule = steps("672000 steps", ("25%", "50%", "75%"), factor=0.2924)
    else:
        optimiser = dataclasses.replace(NESTEROV, weight_decay=5e-6)
        schedule = steps("140000 steps", ("20%", "40%", "60%", "80%"), factor=0.2)
    model = f"{'hyper_' if generated else ''}wrn40_{widening}_cifar10"
    train = TrainConfig(cifar("c10-plus"), ModelConfig(name=model), optimiser, schedule, run=OFTEN)
    return experiment(
        f"hyper.{'hyper-' if generated else ''}wrn40-{widening}-c10-plus",
        f"wide ResNet 40-{widening} with {'generated' if generated else 'ordinary'} kernels",
        WideTrainConfig(train),
        quick={"network": {"depth": 10}},
        smoke={"network": {"depth": 10}},
        measures=("error", "params"),
        deviations=_WIDE + (_GENERATED if generated else ()),
    )


EXPERIMENTS = (
    *(
        _depth(kind, data)
        for data in ("c10-plus", "c10", "c100-plus", "c100")
        for kind in ("constant", "stochastic")
    ),
    *(_depth(kind, "c10-plus", depth=1202) for kind in ("constant", "stochastic")),
    *_squeeze("c10-plus"),
    *_squeeze("c100-plus"),
    *(_published(depth) for depth in (20, 32, 44, 56, 110, 1202)),
    _residual(
        "label-smoothing.resnet20-c10-plus",
        "ResNet-20 with label smoothing 0.1",
        "resnet20_cifar10",
        small="resnet20_cifar10",
        smoothing=0.1,
        measures=(),
        deviations=_SMOOTH,
    ),
    *(_wide(widening, generated=generated) for widening in (1, 2) for generated in (False, True)),
)
