"""Configurations of shorter runs."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import RunConfig
from experiments.suite import config as config_lib


def smaller(config: Any, length: str, run: RunConfig, **groups: dict[str, Any]) -> Any:
    """Returns the configuration with another length of training and other values of groups."""
    changed = {
        name: dataclasses.replace(config_lib.group(config, name), **values)
        for name, values in groups.items()
    }
    schedule = dataclasses.replace(config.train.schedule, length=length)
    return config_lib.replace_groups(config, schedule=schedule, run=run, **changed)
