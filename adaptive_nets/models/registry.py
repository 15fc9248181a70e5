"""Registry of models by name.

A builder is registered by `register_model`, in this package or in a module that another
distribution names in the entry-point group ``adaptive_nets.models``. Those modules are imported
once, at the first lookup.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import inspect
import operator
import sys
import threading
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from adaptive_nets.models.normalisation import Normalisation, standard_normalisation
from adaptive_nets.models.plugins import load_entry_points
from adaptive_nets.runtime.errors import UserError, did_you_mean

ENTRY_POINT_GROUP = "adaptive_nets.models"


@dataclasses.dataclass(frozen=True)
class ModelEntry:
    """One registered model.

    Attributes:
        name: lower case, words joined by underscores.
        build: builder of the module; its keyword arguments are the overrides of `create_model`.
        input_shape: canonical (H, W, C).
        num_classes: number of classes of the data set that the model was published for.
        source: bibliography keys of the architecture and of its variant.
        normalisation: input normalisation that published weights of the model expect.
        description: first line of the builder's docstring.
        adapts: (name of a network of fixed depth, halting rule): the network is its form of
            adaptive depth and takes its weights; None for other networks.
    """

    name: str
    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    num_classes: int
    source: str
    normalisation: Normalisation
    description: str
    adapts: tuple[str, str] | None = None

    @property
    def overrides(self) -> tuple[str, ...]:
        """Names of the keyword arguments that `create_model` passes to the builder."""
        return tuple(inspect.signature(self.build).parameters)


_MODELS: dict[str, ModelEntry] = {}
_ALIASES: dict[str, str] = {}
# None until the first lookup.
_BROKEN_PLUGINS: dict[str, str] | None = None
_LOADING = threading.RLock()


def register_model(
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    source: str,
    normalisation: Normalisation | None = None,
    aliases: tuple[str, ...] = (),
    adapts: tuple[str, str] | None = None,
) -> Callable[[Callable[..., nn.Module]], Callable[..., nn.Module]]:
    """Registers the decorated builder; the first line of its docstring is the description.

    Args:
        name: lower case, words joined by underscores.
        input_shape: canonical (H, W, C).
        num_classes: number of classes of the data set that the model was published for.
        source: bibliography keys of the architecture and of its variant.
        normalisation: input normalisation that published weights expect; `standard_normalisation`
            of the number of channels if None.
        aliases: other names of the model.
        adapts: the network of fixed depth and the halting rule of a network of adaptive depth.

    Raises:
        ValueError: a name is taken, the builder has no docstring, or the normalisation has another
            number of channels than `input_shape`.
    """
    channels = input_shape[-1]
    if normalisation is None:
        normalisation = standard_normalisation(channels)
    if not len(normalisation.mean) == len(normalisation.std) == channels:
        raise ValueError(
            f"normalisation of {name!r} has {len(normalisation.mean)} means and "
            f"{len(normalisation.std)} deviations; expected {channels}, the channels of input_shape"
        )

    def register(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        for taken in (name, *aliases):
            earlier = _MODELS.get(_ALIASES.get(taken, taken))
            if earlier is not None:
                raise ValueError(
                    f"a model named {taken!r} is registered already: "
                    f"{_origin(earlier.build)} and {_origin(build)}"
                )
        if not build.__doc__:
            raise ValueError(f"the builder of {name!r} has no docstring to describe it")
        description = build.__doc__.strip().splitlines()[0]
        _MODELS[name] = ModelEntry(
            name, build, input_shape, num_classes, source, normalisation, description, adapts
        )
        _ALIASES.update(dict.fromkeys(aliases, name))
        return build

    return register


def _origin(build: Callable[..., nn.Module]) -> str:
    return f"{build.__module__}.{getattr(build, '__qualname__', type(build).__name__)}"


def _discard_failed_modules() -> None:
    """Removes the models of modules whose import did not finish."""
    for name, entry in list(_MODELS.items()):
        if entry.build.__module__ not in sys.modules:
            del _MODELS[name]
            for alias in [alias for alias, target in _ALIASES.items() if target == name]:
                del _ALIASES[alias]


def broken_plugins() -> dict[str, str]:
    """Returns the entry points that could not be imported: name -> module and error, in one line.

    The first call of this function, `list_models`, `model_entry` or `create_model` imports the
    modules that other distributions name in the entry-point group ``adaptive_nets.models``.
    """
    global _BROKEN_PLUGINS
    with _LOADING:
        if _BROKEN_PLUGINS is None:
            # A lookup from within a plugin finds what is registered so far.
            _BROKEN_PLUGINS = {}
            _BROKEN_PLUGINS = load_entry_points(ENTRY_POINT_GROUP, discard=_discard_failed_modules)
        return dict(_BROKEN_PLUGINS)


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the registered models that match a shell pattern."""
    broken_plugins()
    return sorted(fnmatch.filter(_MODELS, pattern))


def model_entry(name: str) -> ModelEntry:
    """Returns the entry of a name or an alias.

    Raises:
        UserError: no model has this name; the message suggests the nearest name and lists the
            plugins that could not be imported.
    """
    broken = broken_plugins()
    entry = _MODELS.get(_ALIASES.get(name, name))
    if entry is None:
        message = f"model {name!r} is unknown; {did_you_mean(name, [*_MODELS, *_ALIASES])}"
        for plugin, error in broken.items():
            message += f"; plugin {plugin!r} could not be imported ({error})"
        raise UserError(message)
    return entry


def _positive_integer(value: Any) -> int | None:
    """Converts an integer of Python or NumPy; None if it is not one, or not positive."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
    return number if number > 0 else None


def create_model(name: str, *, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """Creates a model by name.

    Args:
        name: A registered name or alias, see `list_models`.
        num_classes: number of outputs; that of the published network if None.
        **overrides: further arguments of the model's builder, such as `dtype`.

    Returns:
        A linen module: `init(rngs, x, train=False)`, `apply(variables, x, train=False)` -> logits
        float[N, num_classes], in training too. `adaptive_nets.full_output` also returns the logits
        of auxiliary classifiers and the halting traces of networks of adaptive depth.

    Raises:
        UserError: the name or an override is unknown, or the number of classes is not a positive
            whole number.
    """
    entry = model_entry(name)
    number = entry.num_classes if num_classes is None else _positive_integer(num_classes)
    if number is None:
        raise UserError(f"num_classes is {num_classes!r}; expected a positive whole number")
    for override in overrides:
        if override not in entry.overrides:
            raise UserError(
                f"model {entry.name!r} takes no {override!r}; "
                f"{did_you_mean(override, entry.overrides)}"
            )
    return entry.build(num_classes=number, **overrides)
