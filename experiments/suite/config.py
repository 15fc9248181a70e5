"""Configurations as data: JSON, identity, differences, golden text.

A configuration is a frozen dataclass of groups. One that trains is a `TrainConfig`, or holds one as
its first field `train: Training`; the groups of that count as its own, in flags, text and identity.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from adaptive_nets.training.config import TrainConfig
from experiments.suite.run_inputs import RANDOM, TRAIN, RunInput, fields_of

Training = Annotated[TrainConfig, tyro.conf.arg(name="")]
"""Type of the field `train`: its groups are flags without a prefix."""

"""Name of that field."""

# Values that say where and how a run is carried out, not what comes out of it. Where the data come
# from is told by their fingerprint.
NOT_IN_IDENTITY = (
    "mesh",
    "run",
    "data.source",
    "data.eval_batch_size",
    # How long is timed.
    "timing.seconds",
)

# Values that came after the first records. At these they change nothing, and are left out of a
# run's identity, so that it is still that of the records from before.
ADDED_DEFAULTS = {"data.per_image": False, "data.train_limit": 0, "data.test_limit": 0}


def training(config: Any) -> TrainConfig:
    """The part of a configuration that the training loop takes."""
    return config if isinstance(config, TrainConfig) else config.train


def group(config: Any, name: str) -> Any:
    """A group of values by its name, of the training or beside it; None where there is none."""
    found = getattr(config, name, None)
    return getattr(getattr(config, TRAIN, None), name, None) if found is None else found


def replace_groups(config: Any, **groups: Any) -> Any:
    """The same configuration with other groups, of its training or beside it."""
    own = {name: value for name, value in groups.items() if hasattr(config, name)}
    rest = {name: value for name, value in groups.items() if name not in own}
    if rest:
        own[TRAIN] = dataclasses.replace(config.train, **rest)
    return dataclasses.replace(config, **own)


def to_dict(config: Any) -> dict[str, Any]:
    """All values, nested by group, as JSON holds them."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    return {**values.pop(TRAIN, {}), **values}


def identity(config: Any, inputs: Mapping[str, RunInput] | None = None) -> dict[str, Any]:
    """Returns the values that decide the results, flat: {'optimiser.learning_rate': 0.001, ...}.

    A run input stands for its content: its path is replaced by its digest.

    Args:
        config: Configuration of an experiment.
        inputs: Its run inputs, from `run_inputs.resolve_all`. Not needed if it names none.
    """
    values = {
        name: value
        for name, value in flat(to_dict(config)).items()
        if name not in NOT_IN_IDENTITY
        and name.split(".")[0] not in NOT_IN_IDENTITY
        and not (name in ADDED_DEFAULTS and value == ADDED_DEFAULTS[name])
    }
    for name, (field, value) in fields_of(config).items():
        if field.role == "resumed" or (field.role == "required" and not value):
            values.pop(name)
        elif value and value != RANDOM:
            values[name] = (inputs or {})[name].digest
    return values


def changed_values(
    config: Any, preset: Any, inputs: Mapping[str, RunInput] | None = None
) -> list[str]:
    """Returns the names of the values in which a run differs from its preset, sorted.

    An input that the experiment cannot run without is no change.
    """
    required = {name for name, (field, _) in fields_of(config).items() if field.role == "required"}
    names = differences(identity(preset), identity(config, inputs))
    return [name for name in names if name not in required]


def identity_hash(config: Any, inputs: Mapping[str, RunInput] | None = None) -> str:
    """Returns 12 hexadecimal digits over the identity."""
    text = json.dumps(identity(config, inputs), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'optimiser.learning_rate': 0.001, ...}."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Names of the values in which two identities differ, sorted."""
    names = {*first, *second}
    return sorted(name for name in names if first.get(name, ...) != second.get(name, ...))


def flag(name: str) -> str:
    """'optimiser.learning_rate' as it is typed: '--optimiser.learning-rate'."""
    return "--" + name.replace("_", "-")


def text(config: Any) -> str:
    """One line per value, for people and for golden files."""
    return text_of(to_dict(config))


def text_of(values: dict[str, Any]) -> str:
    """Formats the values of a configuration, nested by group, with one line per value."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in flat(values).items())
