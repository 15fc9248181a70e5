"""Names of models, and how to make one from its name."""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from adaptive_nets.runtime.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes:
        name: lower case, words joined by underscores.
        build: makes the module; its keyword arguments are the overrides that `create_model` takes.
        input_shape: canonical (H, W, C).
        num_classes: of the data set it was published for.
        source: bibliography keys of the architecture and of its variant.
        description: one line.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    num_classes: int
    source: str
    description: str

    @property
    def overrides(self) -> tuple[str, ...]:
        """Names of the keyword arguments that `create_model` passes on."""
        return tuple(inspect.signature(self.build).parameters)


_MODELS: dict[str, ModelEntry] = {}
_ALIASES: dict[str, str] = {}


def register_model(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    source: str,
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Registers the decorated builder; the first line of its docstring is its description."""

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        for taken in (name, *aliases):
            if taken in _MODELS or taken in _ALIASES:
                raise ValueError(f"a model named {taken!r} is registered already")
        if not build.__doc__:
            raise ValueError(f"the builder of {name!r} has no docstring to describe it")
        description = build.__doc__.strip().splitlines()[0]
        _MODELS[name] = ModelEntry(name, build, input_shape, num_classes, source, description)
        _ALIASES.update(dict.fromkeys(aliases, name))
        return build

    return register


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell pattern, sorted."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def model_entry(name: str) -> ModelEntry:
    """The entry behind a name or an alias.

    Raises:
        UserError: no model has this name; the message suggests the nearest.
    """
    entry = _MODELS.get(_ALIASES.get(name, name))
    if entry is None:
        raise UserError(f"model {name!r} is unknown; {did_you_mean(name, [*_MODELS, *_ALIASES])}")
    return entry


def create_model(name: str, *, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """Makes a model by name.

    Args:
        name: a registered name or alias, see `list_models`.
        num_classes: number of outputs; that of the published network where not given.
        **overrides: what else the family's builder takes, `dtype` for instance.

    Returns:
        A linen module: `init(rngs, x, train=False)`, `apply(variables, x, train=False)` -> logits
        float[N, num_classes].

    Raises:
        UserError: unknown name or override, or a number of classes that is not positive.
    """
    entry = model_entry(name)
    if num_classes is None:
        num_classes = entry.num_classes
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise UserError(f"num_classes is {num_classes!r}; expected a positive whole number")
    for override in overrides:
        if override not in entry.overrides:
            raise UserError(
                f"model {entry.name!r} takes no {override!r}; "
                f"{did_you_mean(override, entry.overrides)}"
            )
    return entry.build(num_classes=num_classes, **overrides)
