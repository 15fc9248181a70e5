"""Configurations as data: JSON, identity, differences, golden text.

A configuration is a frozen dataclass of groups. The configuration of a training is a `TrainConfig`,
or has one in its first field ``train: Training``. In flags, text and identity, the groups of this
field appear without a prefix.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any

import tyro

from adaptive_nets.training.config import TrainConfig
from experiments.suite.run_inputs import RANDOM, TRAIN, RunInput, fields_of, replace_path

Training = Annotated[TrainConfig, tyro.conf.arg(name="")]
"""Type of the field `train`: its groups are flags without a prefix."""

# Values that determine the execution of a run, but not its results. The fingerprint of the data set
# replaces its source.
NOT_IN_IDENTITY = (
    "mesh",
    "run",
    "data.source",
    "data.eval_batch_size",
    "timing.seconds",
)

# Fields added after the first records. With these values a field is left out of the identity, so
# that the hashes of earlier records stay valid.
ADDED_DEFAULTS = {
    "data.per_image": False,
    "data.train_limit": 0,
    "data.test_limit": 0,
    "data.crop_area": [0.08, 1.0],
    "data.mean": [],
    "data.std": [],
    "perforation.interpolation": "implicit",
    "halting.distillation": 0.0,
    "halting.softening": 4.0,
    "halting.shifts": [],
    "halting.tau_growth": 0.0,
    "variational.parameterisation": "additive",
    "data.colour_distortion": False,
    "data.random_operations": 0,
    "data.random_magnitude": 45.0,
}


def training(config: Any) -> TrainConfig:
    """Returns the training configuration within a configuration."""
    return config if isinstance(config, TrainConfig) else config.train


def group(config: Any, name: str) -> Any:
    """Returns a group by name, of the configuration or of its training; None if there is none."""
    found = getattr(config, name, None)
    return getattr(getattr(config, TRAIN, None), name, None) if found is None else found


def replace_groups(config: Any, **groups: Any) -> Any:
    """Returns a copy with some groups replaced, of the configuration or of its training."""
    own = {name: value for name, value in groups.items() if hasattr(config, name)}
    rest = {name: value for name, value in groups.items() if name not in own}
    if rest:
        own[TRAIN] = dataclasses.replace(config.train, **rest)
    return dataclasses.replace(config, **own)


def to_dict(config: Any) -> dict[str, Any]:
    """Converts a configuration to JSON values, nested by group."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    return {**values.pop(TRAIN, {}), **values}


def identity(config: Any, inputs: Mapping[str, RunInput] | None = None) -> dict[str, Any]:
    """Returns the values that determine the results, flat: {'optimiser.learning_rate': 0.001, ...}.

    The path of a run input is replaced by the digest of its content.

    Args:
        config: configuration of an experiment.
        inputs: its run inputs, from `run_inputs.resolve_all`; not needed if it has none.
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
            replace_path(values, name, (inputs or {})[name].digest)
    return values


def changed_values(
    config: Any, preset: Any, inputs: Mapping[str, RunInput] | None = None
) -> list[str]:
    """Returns the sorted names of the values in which a run differs from its preset.

    A required run input does not count as a change.
    """
    required = {name for name, (field, _) in fields_of(config).items() if field.role == "required"}
    names = differences(identity(preset), identity(config, inputs))
    return [name for name in names if name not in required]


def changed_since(recorded: dict[str, Any], preset: Any) -> list[str]:
    """Returns the sorted names of the recorded values that a preset does not have.

    A value that came later than the record is taken to have been what it was before it came.

    Args:
        recorded: configuration in a record, nested by group.
        preset: configuration of the preset.
    """
    inputs = {name for name, (field, _) in fields_of(preset).items() if field.role != "optional"}
    whole = {
        name: value
        for name, value in flat(to_dict(preset)).items()
        if not {name, name.split(".")[0]} & {*NOT_IN_IDENTITY, *inputs}
    }
    earlier = {name: value for name, value in ADDED_DEFAULTS.items() if name in whole}
    values = {**earlier, **flat(recorded)}
    return sorted(n for n, v in values.items() if n in whole and v != whole[n])


def identity_hash(config: Any, inputs: Mapping[str, RunInput] | None = None) -> str:
    """Returns a hash of the identity, 12 hexadecimal digits."""
    text = json.dumps(identity(config, inputs), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested values: {'optimiser.learning_rate': 0.001, ...}."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def differences(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Returns the sorted names of the values in which two identities differ."""
    names = {*first, *second}
    return sorted(name for name in names if first.get(name, ...) != second.get(name, ...))


def flag(name: str) -> str:
    """Returns the flag of a value: 'optimiser.learning_rate' -> '--optimiser.learning-rate'."""
    return "--" + name.replace("_", "-")


def text(config: Any) -> str:
    """Formats a configuration with one line per value, for people and for golden files."""
    return text_of(to_dict(config))


def text_of(values: dict[str, Any]) -> str:
    """Formats the values of a configuration, nested by group, with one line per value."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in flat(values).items())
