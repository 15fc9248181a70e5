"""Source networks and the priors of their kernels."""

from __future__ import annotations

from experiments.papers.dwp.configs.presets import (
    MODELS,
    SMOKE_DATA,
    SMOKE_RUN,
    SMOKE_WIDTHS,
    TITLES,
    WIDTHS,
    changed,
    training,
)
from experiments.papers.dwp.fields import (
    NetworkConfig,
    PriorsConfig,
    SourcesConfig,
    TimedSourcesConfig,
    VAEConfig,
)
from experiments.suite.experiment import Experiment, Preset

_SOURCES = {"mnist": "notmnist", "cifar10": "cifar100", "shapes": "notmnist"}
# Channels of the source networks of the paper, wider than those of the target.
_WIDTHS = {**WIDTHS, "mnist": (256, 512)}
_REDUCED_WIDTHS = {"mnist": (16, 8), "cifar10": (16, 8, 8), "shapes": (16,)}

_REDUCED = (
    "Presets quick and day have narrower and fewer source networks, trained for a few epochs at a "
    "larger rate and with ten times the weight decay; they keep slices by a share of the largest "
    "norm, since norms depend on widths and schedules, and their priors are 16 wide in place of 32 "
    "(7x7) and 64 (5x5), with 8 latent variables in place of 2 and 4, trained for 6,000 steps or "
    "more: kernels of narrow networks vary more."
)
_NORMS = (
    "The authors' script that drops slices of small norm is not released; ours drops those "
    "below the least norm of the released kernels, 0.39 (7x7) and 0.13 (5x5)."
)
_FLOOR = "Variances of the priors have a floor of 1e-6; the authors' have none."
_SHARED = (
    "All source networks see the same batches; their initial weights differ. The authors train "
    "each alone.",
)
_OF_TARGET = {
    "mnist": (
        "notMNIST in MNIST's layout with only its test part is divided: nine tenths are training "
        "images.",
    ),
    "cifar10": (
        "Number, widths and schedule of the source networks are not published; ours are those of "
        "the replication MarkovDWP (100 networks) and of MNIST's sources.",
    ),
    "shapes": (
        "The source data of the four shapes is not published; ours is notMNIST.",
    ),
}  # fmt: skip


def _presets(target: str) -> dict[str, Preset]:
    config = PriorsConfig(
        training(target, "100 epochs", 256, data=_SOURCES[target]),
        NetworkConfig(_WIDTHS[target]),
        SourcesConfig(),
        VAEConfig(),
    )
    narrow = {"widths": _REDUCED_WIDTHS[target]}
    small = {"hidden": 16, "latent": 8, "epochs": 50, "least_steps": 6000, "train_limit": 5000}
    # So short a training needs a stronger decay for slices that are smooth, or vanish.
    strong = {"relative_norm": 0.2, "penalty": 1e-2}
    fast = {"learning_rate": 3e-3}
    quick = changed(
        config, "4 epochs",
        data={"batch_size": 64, "train_limit": 4000},
        optimiser=fast,
        network=narrow,
        sources={**strong, "count": 10},
        vae={**small, "least_steps": 1000},
    )  # fmt: skip
    day = changed(
        config, "4 epochs",
        data={"batch_size": 32, "train_limit": 10_000},
        optimiser=fast,
        network=narrow,
        sources=strong,
        vae=small,
    )  # fmt: skip
    smoke = changed(
        config, "2 steps", SMOKE_RUN,
        data=SMOKE_DATA,
        network={"widths": SMOKE_WIDTHS[target]},
        sources={"count": 8, "relative_norm": 0.01},
        vae={"hidden": 2, "epochs": 1, "batch_size": 8, "samples": 4, "measured": 8},
    )  # fmt: skip
    return {
        "smoke": Preset(smoke),
        "quick": Preset(quick),
        "day": Preset(day),
        "paper": Preset(config),
    }


def _priors() -> tuple[Experiment, ...]:
    return tuple(
        Experiment(
            id=f"dwp.priors.{target}",
            title=f"source networks ({MODELS[target]} on {_SOURCES[target]}) and priors for "
            f"{TITLES[target]}",
            row=f"priors.{target}",
            presets=_presets(target),
            runner="experiments.papers.dwp.experiments.priors:run",
            data=_SOURCES[target],
            deviations=(*_SHARED, *_OF_TARGET[target], _NORMS, _REDUCED, _FLOOR),
            recipe=("vae.samples", "vae.measured", "vae.seed"),
        )
        for target in MODELS
    )


def _timed() -> Experiment:
    """Defines the timing of source networks of MNIST, of the widths of preset day."""
    train = training("mnist", "1 epochs", 64)
    config = TimedSourcesConfig(train, NetworkConfig(_REDUCED_WIDTHS["mnist"]), SourcesConfig())
    smoke = changed(
        config, "1 epochs", SMOKE_RUN, data=SMOKE_DATA,
        network={"widths": SMOKE_WIDTHS["mnist"]}, sources={"count": 2},
        timing={"seconds": 0.1},
    )  # fmt: skip
    return Experiment(
        id="dwp.sources.time",
        title="a step of 100 source networks, in one program and one after the other",
        row="sources.time",
        presets={
            "smoke": Preset(smoke),
            "quick": Preset(changed(config, "1 epochs", timing={"seconds": 10.0})),
            "paper": Preset(config),
        },
        runner="experiments.papers.dwp.experiments.timing:run",
        data="mnist",
        deviations=("The publication has no such time; networks are as narrow as in preset day.",),
        recipe=("timing.seconds",),
    )


EXPERIMENTS = (
    _timed(),
    *_priors(),
)
