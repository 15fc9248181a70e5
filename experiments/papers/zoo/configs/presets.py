"""Presets of smaller runs, and what several rows share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from adaptive_nets.training.config import RunConfig
from experiments.suite import config as config_lib
from experiments.suite.experiment import Bound, Preset

IMAGES = "experiments.papers.zoo.experiment:run"
OFTEN = RunConfig(log_every="1%", eval_every="5%", checkpoint_every="5%")
_QUICK_RUN = RunConfig(log_every="2%", eval_every="20%", checkpoint_every="10%")
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")
SMOKE_DATA = {"batch_size": 16, "eval_batch_size": 32, "train_limit": 64, "test_limit": 64}

Changes = Mapping[str, Mapping[str, Any]]
"""Group of flags -> its changed values."""


def changed(config: Any, groups: Changes) -> Any:
    """Returns the configuration with other values in some groups."""
    return config_lib.replace_groups(
        config,
        **{
            name: dataclasses.replace(config_lib.group(config, name), **values)
            for name, values in groups.items()
        },
    )


def presets(
    config: Any,
    *,
    quick: Changes,
    smoke: Changes | None = None,
    smoke_length: str = "2 steps",
    seeds: int = 1,
    quick_seeds: int = 2,
    bounds: tuple[Bound, ...] = (),
) -> dict[str, Preset]:
    """Returns the presets of a training on images.

    Args:
        config: configuration of the preset paper.
        quick: changes of the preset quick.
        smoke: changes of the preset smoke besides its length and its few images.
        smoke_length: length of training of the preset smoke.
        seeds: seeds of the preset paper.
        quick_seeds: seeds of the preset quick.
        bounds: bounds of the preset paper.
    """
    smoke = dict(smoke or {})
    smoke["data"] = {**SMOKE_DATA, **smoke.get("data", {})}
    small = changed(config, {**smoke, "schedule": {"length": smoke_length}})
    brief = changed(config, quick)
    return {
        "smoke": Preset(config_lib.replace_groups(small, run=_SMOKE_RUN)),
        "quick": Preset(config_lib.replace_groups(brief, run=_QUICK_RUN), seeds=quick_seeds),
        "paper": Preset(config, seeds=seeds, bounds=bounds),
    }
