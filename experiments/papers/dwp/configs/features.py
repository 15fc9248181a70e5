"""Random features: frozen convolutions from a prior, from source kernels, or Xavier."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from experiments.papers.dwp.configs.presets import (
    CHOSEN_BY_US,
    SEPARATE,
    SETS,
    SMOKE_DATA,
    SMOKE_RUN,
    SMOKE_WIDTHS,
    TITLES,
    WIDTHS,
    changed,
    training,
)
from experiments.papers.dwp.fields import (
    KernelsConfig,
    KernelsRunConfig,
    NetworkConfig,
    SourcedKernelsConfig,
    SourcedKernelsRunConfig,
)
from experiments.suite.experiment import Bound, Experiment, Preset

INITS = {"dwp": "vae", "xavier": "xavier", "filters": "filters"}
"""Last part of the id -> initialisation."""
WORDS = {"dwp": "samples of the prior", "xavier": "Xavier", "filters": "source kernels"}
SCALES = {
    "mnist": (Fraction(1, 16), Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1)),
    "cifar10": (Fraction(1, 8), Fraction(1, 4), Fraction(1, 2), Fraction(1)),
}
"""Target -> factors k of the widths."""
WHOLE = {"mnist": (256, 512), "cifar10": WIDTHS["cifar10"]}
"""Target -> channels at k = 1, for MNIST those of the source networks: a sixteenth of the target
network's would be two channels."""


def name_of(target: str, scale: Fraction, init: str) -> str:
    """Returns the part of ids and rows that names a run, "features.mnist-1of16-dwp"."""
    return f"features.{target}-{scale.numerator}of{scale.denominator}-{init}"


def kernels_config(train: Any, widths: tuple[int, ...], init: str) -> Any:
    """Returns the configuration of a training with initial kernels.

    Args:
        train: configuration of the training.
        widths: channels of the convolutions.
        init: key of `INITS`.
    """
    network = NetworkConfig(widths)
    if init == "xavier":
        return KernelsRunConfig(train, network, KernelsConfig())
    kind: Any = INITS[init]
    return SourcedKernelsRunConfig(train, network, SourcedKernelsConfig(init=kind))


def smoke_preset(config: Any, target: str) -> Preset:
    """Returns the preset smoke of a training with initial kernels."""
    groups: dict[str, Any] = {
        "data": SMOKE_DATA, "network": {"widths": SMOKE_WIDTHS[target]},
    }  # fmt: skip
    if isinstance(config, SourcedKernelsRunConfig):
        groups["kernels"] = {"source": "random"}
    return Preset(changed(config, "2 steps", SMOKE_RUN, **groups))


def _experiment(target: str, scale: Fraction, init: str) -> Experiment:
    widths = tuple(int(width * scale) for width in WHOLE[target])
    config = kernels_config(training(target, "20 epochs", 256), widths, init)
    day = "3 epochs" if target == "mnist" else "2 epochs"
    quick = changed(config, "1 epochs", data={"train_limit": 10_000, "test_limit": 2000})
    name = name_of(target, scale, init)
    return Experiment(
        id=f"dwp.{name}",
        title=f"{TITLES[target]}, frozen convolutions of {scale} width, {WORDS[init]}",
        row=name,
        presets={
            "smoke": smoke_preset(config, target),
            "quick": Preset(quick),
            "day": Preset(changed(config, day), seeds=3),
            "paper": Preset(config, seeds=3, bounds=(Bound("accuracy", 10, 100),)),
        },
        runner="experiments.papers.dwp.experiments.kernels:run_features",
        data=SETS[target] + ("" if init == "xavier" else f", and a run of dwp.priors.{target}"),
        deviations=(
            CHOSEN_BY_US.format(
                what="network, widths and schedule of this figure", is_are="are",
                values="the network of few labels with scaled widths (for MNIST those of the "
                "source networks), and 20 epochs of Adam at 1e-3, linear to 0",
            ),
            *(() if init == "xavier" else (SEPARATE,)),
            f"Preset day is {day} long.",
        ),
        measures=("accuracy",),
    )  # fmt: skip


EXPERIMENTS = tuple(
    _experiment(target, scale, init)
    for target, scales in SCALES.items()
    for scale in scales
    for init in INITS
)
