"""VGG-like networks on CIFAR: error and compression over the width."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.sparse_vd.configs.fields import (
    StartConfig,
    StartedSparseConfig,
    VariationalConfig,
    WideConfig,
    WidthConfig,
)
from experiments.papers.sparse_vd.configs.recipes import (
    EPSILON_CIFAR,
    RECIPE,
    RUNNER,
    SPARSE_DEVIATIONS,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Experiment, Preset

WIDTHS = (0.25, 0.5, 1.0, 1.5)
SETS = {
    "cifar10": "CIFAR-10",
    "cifar100-coarse": "CIFAR-100, coarse labels",
    "cifar100-fine": "CIFAR-100, fine labels",
}
"""Part of the id -> title. The authors' loader of CIFAR-100 reads the 20 coarse labels."""
_NAMES = {"cifar10": "cifar10", "cifar100-coarse": "cifar100_coarse", "cifar100-fine": "cifar100"}
_OFTEN = RunConfig(log_every="1%", eval_every="5%", checkpoint_every="2%")
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")
_SMOKE_DATA = {"batch_size": 8, "eval_batch_size": 20, "train_limit": 40, "test_limit": 20}

DATA = DataConfig(name="cifar10", centre="channel", standardise=True, eval_batch_size=500)
_DATA_DEVIATION = (
    "Images are standardised per channel; the authors whiten them with all pixels (ZCA).",
)
_DENSE_DEVIATION = (
    "The authors' released rate of 1e-5 fits fine-tuning only; ours is 1e-3, flat for half of the "
    "epochs and then linear to 0.",
)
_DAY_DENSE = (
    "Preset day is our schedule for two CPU cores: 20 epochs, the rate linear to 0 from epoch 8.",
)
_DAY_SPARSE = (
    "Preset day is our schedule for two CPU cores: 16 epochs at a rate of 3e-4, since at 1e-5 so "
    "few steps cannot move a weight to 0; the divergence is warmed up over epochs 1 to 5.",
)


def _dense(data: str, width: float) -> WideConfig:
    train = TrainConfig(
        data=dataclasses.replace(DATA, name=_NAMES[data]),
        model=ModelConfig(name="vgg_cifar10"),
        optimiser=OptimiserConfig(learning_rate=1e-3, weight_decay=1e-5),
        schedule=ScheduleConfig(length="200 epochs", kind="linear", hold="50%"),
        run=_OFTEN,
    )
    return WideConfig(train, WidthConfig(width))


def _sparse(data: str, width: float) -> StartedSparseConfig:
    train = TrainConfig(
        data=dataclasses.replace(DATA, name=_NAMES[data]),
        model=ModelConfig(name="vgg_cifar10_sparse_vd"),
        optimiser=OptimiserConfig(learning_rate=1e-5, epsilon=EPSILON_CIFAR),
        schedule=ScheduleConfig(length="200 epochs", kind="linear", hold="50%"),
        run=_OFTEN,
    )
    values = VariationalConfig(log_sigma2_init=-15.0, mask_in_training=False)
    return StartedSparseConfig(train, values, WidthConfig(width), StartConfig())


def _shorter(config: Any, length: str, run: RunConfig, **groups: Any) -> Any:
    """Returns the configuration with another length and other values of its groups."""
    changes = {
        name: dataclasses.replace(config_lib.group(config, name), **values)
        for name, values in {"schedule": {}, **groups}.items()
    }
    changes["schedule"] = dataclasses.replace(changes["schedule"], length=length)
    return config_lib.replace_groups(config, run=run, **changes)


def _presets(config: Any) -> dict[str, Preset]:
    started = isinstance(config, StartedSparseConfig)
    smoke: dict[str, Any] = {"data": _SMOKE_DATA, "network": {"width": 1 / 32}}
    quick: dict[str, Any] = {"data": {"train_limit": 10000, "test_limit": 2000}}
    day: dict[str, Any] = {"schedule": {"hold": "40%"}}
    if started:
        smoke |= {
            "start": {"weights": "random"}, "variational": {"kl_start": "10%", "kl_full": "50%"},
        }  # fmt: skip
        rate = {"learning_rate": 3e-4}
        quick |= {"optimiser": rate, "variational": {"kl_start": "10%", "kl_full": "40%"}}
        day |= {"optimiser": rate, "variational": {"kl_start": "1 epochs", "kl_full": "5 epochs"}}
    return {
        "smoke": Preset(_shorter(config, "2 steps", _SMOKE_RUN, **smoke)),
        "quick": Preset(_shorter(config, "5 epochs", _OFTEN, **quick)),
        "day": Preset(_shorter(config, "16 epochs" if started else "20 epochs", _OFTEN, **day)),
        "paper": Preset(config),
    }


def name_of(data: str, width: float) -> str:
    """Returns the part of ids and rows that names a network.

    Args:
        data: key of `SETS`.
        width: factor k.
    """
    return f"vgg.{data}-k" + f"{width:g}".replace(".", "p")


def _pair(data: str, width: float) -> tuple[Experiment, Experiment]:
    name = name_of(data, width)
    where = f"VGG-like network of width {width:g} on {SETS[data]}"
    dense = Experiment(
        id=f"sparse_vd.{name}-original",
        title=f"{where}, dense",
        row=f"{name}-original",
        presets=_presets(_dense(data, width)),
        runner=RUNNER,
        data=_NAMES[data],
        deviations=(*_DATA_DEVIATION, *_DENSE_DEVIATION, *_DAY_DENSE),
        measures=("error",),
    )
    sparse = Experiment(
        id=f"sparse_vd.{name}-sparse",
        title=f"{where}, sparse variational dropout",
        row=f"{name}-sparse",
        presets=_presets(_sparse(data, width)),
        runner=RUNNER,
        data=f"{_NAMES[data]}, and a run of {dense.id}",
        deviations=(*_DATA_DEVIATION, *SPARSE_DEVIATIONS, *_DAY_SPARSE),
        measures=("error", "compression"),
        recipe=RECIPE,
    )
    return dense, sparse


EXPERIMENTS = tuple(
    experiment for data in SETS for width in WIDTHS for experiment in _pair(data, width)
)
