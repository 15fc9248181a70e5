"""Configurations as data: JSON, identity, differences, golden text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from adaptive_nets.training.config import TrainConfig

# Values that say where and how a run is carried out, not what comes out of it. Where the data come
# from is told by their fingerprint.
NOT_IN_IDENTITY = (
    "mesh",
    "run",
    "data.source",
    "data.eval_batch_size",
    # Folders; what was in them is told by digests.
    "perforation.source",
    "search.begin_from",
    # How long is timed.
    "timing.seconds",
)

# Values that came after the first records. At these they change nothing, and are left out of a
# run's identity, so that it is still that of the records from before.
ADDED_DEFAULTS = {"data.per_image": False, "data.train_limit": 0, "data.test_limit": 0}


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """All values, nested by group, as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def identity(config: TrainConfig) -> dict[str, Any]:
    """The values that decide what is trained, flat: {'optimiser.learning_rate': 0.001, ...}."""
    return {
        name: value
        for name, value in flat(to_dict(config)).items()
        if name not in NOT_IN_IDENTITY
        and name.split(".")[0] not in NOT_IN_IDENTITY
        and not (name in ADDED_DEFAULTS and value == ADDED_DEFAULTS[name])
    }


def identity_hash(config: TrainConfig) -> str:
    """12 hexadecimal digits over the identity."""
    text = json.dumps(identity(config), sort_keys=True)
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


def text(config: TrainConfig) -> str:
    """One line per value, for people and for golden files."""
    return "".join(
        f"{name} = {json.dumps(value)}\n" for name, value in flat(to_dict(config)).items()
    )
