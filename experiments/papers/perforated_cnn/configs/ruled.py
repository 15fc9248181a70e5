"""Experiments on whole networks that a rule perforates: AlexNet, VGG-16, and costs of NIN."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import ModelConfig
from experiments.papers.perforated_cnn.configs.fields import (
    Device,
    PerforationConfig,
    RuleConfig,
    RuledConfig,
    TimingConfig,
    ValidationConfig,
)
from experiments.suite.experiment import Experiment, Preset

RUNNER = "experiments.papers.perforated_cnn.experiments.whole_network:run"

MACS = (
    "Multiplications include every convolution and dense layer; 1x1 convolutions count at the "
    "positions that they compute.",
)
_NO_TRAINING = ("The paper fine-tunes on ImageNet after perforation; here nothing is trained.",)
_NO_ERRORS = (
    "Errors are measured with --perforation.source FILE on a prepared ImageNet; without it the "
    "weights are random and errors are not measured.",
)

_NETWORKS = {
    "nin": ("nin_cifar10", "NIN"),
    "alexnet": ("caffenet", "AlexNet"),
    "vgg16": ("vgg16", "VGG-16"),
}


# AlexNet has a large first map: with equal fractions it saves less memory than the paper's
# networks. Its falloff is the smallest multiple of 1/4 that saves as much (see `_MATCHED`).
# VGG-16 has layers with few channels on large maps, where irregular positions are slow to gather,
# so its masks are regular grids that keep less of larger maps.
_RULES: dict[tuple[str, int], dict[str, Any]] = {
    ("alexnet", 2): {"falloff": 0.25},
    ("alexnet", 3): {"falloff": 0.75},
    ("alexnet", 4): {"falloff": 0.5},
    **{("vgg16", times): {"falloff": 0.3, "kind": "regular"} for times in (2, 3, 4)},
}


_MATCHED = "the rule is chosen to save as much as the paper"

_COSTS = ("milliseconds", "memory", "macs", "conv_layers")
_WHOLE = ("speedup", "macs_reduction", "memory_reduction", "top5_increase")


def _ruled(
    row: str,
    network: str,
    title: str,
    *,
    device: Device = "cpu",
    batches=(1, 16),
    measures: tuple[str, ...],
    deviations: tuple[str, ...],
    chosen: dict[str, str] | None = None,
    **rule: Any,
) -> Experiment:
    model, _ = _NETWORKS[network]
    data = "cifar10" if network == "nin" else "imagenet"
    config = RuledConfig(
        data=ValidationConfig(name=data),
        model=ModelConfig(name=model),
        perforation=PerforationConfig(device=device),
        rule=RuleConfig(**rule),
        timing=TimingConfig(batches=batches, seconds=120.0),
    )
    smoke = dataclasses.replace(config, timing=TimingConfig(batches=(1,), seconds=0.0))
    quick = dataclasses.replace(config, timing=dataclasses.replace(config.timing, seconds=20.0))
    return Experiment(
        id=f"perforated_cnn.{row}",
        title=title,
        row=row,
        presets={"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)},
        runner=RUNNER,
        data=f"{data}, and trained weights"
        if "top5_error" in measures
        else f"none; {data} and trained weights for errors",
        deviations=deviations,
        measures=measures,
        chosen=chosen or {},
    )


def cost(network: str, batch: int) -> Experiment:
    """Defines the costs of an unperforated network, timed at batch 1 and at another size."""
    return _ruled(
        f"table1.{network}-cost", network,
        f"{_NETWORKS[network][1]}, unperforated: time, multiplications, memory",
        batches=(1, batch), measures=_COSTS, deviations=MACS, reduction=1.0,
    )  # fmt: skip


def error(network: str) -> Experiment:
    """Defines the errors of an unperforated network with given weights on ImageNet."""
    return _ruled(
        f"table1.{network}", network, f"{_NETWORKS[network][1]} on ImageNet, unperforated: errors",
        batches=(1,), measures=("top5_error",), deviations=_NO_ERRORS, reduction=1.0,
    )  # fmt: skip


def whole(network: str, device: Device, times: int) -> Experiment:
    """Defines a row of Table 3: all layers that the paper perforates, perforated by a rule."""
    title = f"{_NETWORKS[network][1]}, perforated for {times}x fewer multiplications on a {device}"
    rule = _RULES[network, times]
    chosen = {"macs_reduction": "target of our rule"}
    if network == "alexnet":
        chosen["memory_reduction"] = _MATCHED
    return _ruled(
        f"table3.{network}-{device}-{times}x", network, title.replace(device, device.upper()),
        device=device, measures=_WHOLE, chosen=chosen,
        deviations=(_by_rule(**rule), *_NO_TRAINING, *_NO_ERRORS, *MACS),
        reduction=float(times), **rule,
    )  # fmt: skip


def _by_rule(*, falloff: float, kind: str = "grid") -> str:
    masks = {"grid": "grids", "regular": "regular grids: every a-th row and b-th column"}[kind]
    fewer = "layers with larger maps keep less" if falloff else "all layers keep the same fraction"
    return f"Keep fractions follow a rule instead of the search: {fewer}. Masks are {masks}."


def conv2(name: str, rate: float) -> Experiment:
    """Defines a row of Table 2: conv2 of AlexNet alone."""
    return _ruled(
        f"table2.alexnet-conv2-{name}", "alexnet", f"AlexNet's conv2 at rate {rate:.3g}, grid mask",
        batches=(16,), measures=("layer_speedup",),
        deviations=(
            "The mask is a grid, which computes at most as many positions. The paper's is an "
            "impact mask, which needs images.",
            *_NO_TRAINING,
        ),
        layer="conv2", rate=rate,
    )  # fmt: skip
