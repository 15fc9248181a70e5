"""Published parameter counts and the counts of the corresponding networks here.

Reading the published counts imports neither JAX nor Flax; counting ours does.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib.resources
import math
import tomllib
from typing import Any

FILE = "reference_counts.toml"


@dataclasses.dataclass(frozen=True)
class ReferenceCount:
    """Published parameter count.

    Attributes:
        name: key of the count in the file.
        model: registered name of the network or character model.
        parameters: published number of parameters.
        source: source of the count.
        overrides: overrides of the network.
        counted: shell patterns of the paths of counted variables.
        without: shell patterns of the paths of excluded variables.
    """

    name: str
    model: str
    parameters: int
    source: str
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    counted: tuple[str, ...] = ("params/*",)
    without: tuple[str, ...] = ()


@functools.cache
def reference_counts() -> dict[str, ReferenceCount]:
    """Returns all published counts by key."""
    path = importlib.resources.files("adaptive_nets") / "models" / FILE
    text = path.read_text(encoding="utf-8")
    counts = {}
    for name, values in tomllib.loads(text).items():
        tuples = {key: tuple(v) for key, v in values.items() if isinstance(v, list)}
        counts[name] = ReferenceCount(name, **(values | tuples))
    return counts


def _variables(reference: ReferenceCount) -> Any:
    import jax
    import jax.numpy as jnp

    from adaptive_nets.models import create_model, model_entry
    from adaptive_nets.models.char_lm import CHAR_MODELS, create_char_model
    from adaptive_nets.models.shapes import abstract_variables

    overrides: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in reference.overrides.items()
    }
    if reference.model in CHAR_MODELS:
        model = create_char_model(reference.model, **overrides)
        tokens = jnp.zeros((1, 1), jnp.int32)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), tokens))
    model = create_model(reference.model, **overrides)
    return abstract_variables(model, model_entry(reference.model).input_shape)


def model_count(reference: ReferenceCount) -> int:
    """Counts the parameters of the network, or of the named part, without running it."""
    from adaptive_nets.models.shapes import flatten_paths

    def matches(path: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)

    return sum(
        math.prod(leaf.shape)
        for path, leaf in flatten_paths(_variables(reference)).items()
        if matches(path, reference.counted) and not matches(path, reference.without)
    )
