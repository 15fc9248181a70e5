"""Presets of smaller runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import ModelConfig, RunConfig
from experiments.papers.perforated_cnn.configs.fields import (
    PerforationConfig,
    SingleLayerConfig,
    TimingConfig,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Preset


def smaller(config: Any, length: str, run: RunConfig, **groups: dict[str, Any]) -> Any:
    """Returns the configuration with another length of training and other values of groups."""
    changed = {
        name: dataclasses.replace(config_lib.group(config, name), **values)
        for name, values in groups.items()
    }
    schedule = dataclasses.replace(config.train.schedule, length=length)
    return config_lib.replace_groups(config, schedule=schedule, run=run, **changed)


def single_layer_presets(
    config: SingleLayerConfig, *, smoke_model: ModelConfig | None = None
) -> dict[str, Preset]:
    """Returns the presets of one layer under one kind of mask.

    Args:
        config: configuration of the preset paper.
        smoke_model: network of the preset smoke; None for the same.
    """
    quick = dataclasses.replace(
        config,
        layer=dataclasses.replace(
            config.layer, images=1000, impact_images=512, rates=(1 / 2, 3 / 4, 5 / 6, 9 / 10)
        ),
        timing=dataclasses.replace(config.timing, seconds=10.0),
    )
    smoke = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train_limit=64, test_limit=32),
        model=smoke_model or config.model,
        perforation=PerforationConfig(source="random"),
        layer=dataclasses.replace(
            config.layer, images=16, impact_images=16, batch_size=16, rates=(0.5, 0.75), draws=2
        ),
        timing=TimingConfig(batches=(1,), seconds=0.0),
    )
    return {"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)}
