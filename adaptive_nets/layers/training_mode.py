"""Names under which modules of other libraries take the training mode of a call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

TRAINING = ("train", "training", "is_training")
"""Arguments that are true in training."""
INFERENCE = ("deterministic", "use_running_average")
"""Arguments that are false in training."""


def mode_options(names: Iterable[str], train: bool) -> dict[str, bool]:
    """Returns the training mode under each name that a call has for it; empty without one.

    Args:
        names: names of the call's arguments.
        train: whether the call is one of training.
    """
    known = set(names)
    modes = dict.fromkeys(TRAINING, train) | dict.fromkeys(INFERENCE, not train)
    return {name: value for name, value in modes.items() if name in known}


def call_in_mode(module: Callable[..., Any], x: Any, train: bool, **options: Any) -> Any:
    """Calls a module, or any function, with the training mode under the name that it has for it.

    Args:
        module: linen module, or function.
        x: first argument.
        train: whether the call is one of training.
        **options: further arguments.
    """
    names = inspect.signature(type(module).__call__ if _is_object(module) else module).parameters
    return module(x, **mode_options(names, train), **options)


def _is_object(module: Any) -> bool:
    return not inspect.isroutine(module) and not isinstance(module, type)
