"""Inert objects in place of the objects that a pickle asks for.

An unpickler calls classes with arguments, calls their methods, and sets attributes. The classes
made here accept all of these and do nothing, except that they keep the entries of a mapping.
"""

from __future__ import annotations

from typing import Any


class Inert:
    """Object that accepts whatever an unpickler does with it.

    Attributes:
        inert_name: module and name of the class in the file.
        inert_items: (key, value) pairs that were set, as in a subclass of dict.
    """

    inert_name = "object"
    inert_items: list[tuple[Any, Any]]

    def __new__(cls, *arguments: Any, **named: Any) -> Inert:
        """Returns an object; the arguments are ignored."""
        made = object.__new__(cls)
        object.__setattr__(made, "inert_items", [])
        return made

    def __init__(self, *arguments: Any, **named: Any):
        """Ignores the arguments."""

    def __setstate__(self, state: Any) -> None:
        """Ignores the state."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Ignores the attribute."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keeps an entry."""
        self.inert_items.append((key, value))

    def __call__(self, *arguments: Any, **named: Any) -> Inert:
        """Returns itself: an object that is called as a function has no result."""
        return self

    def append(self, item: Any) -> None:
        """Ignores an item of a list."""

    def extend(self, items: Any) -> None:
        """Ignores items of a list."""

    def add(self, item: Any) -> None:
        """Ignores an item of a set."""


def inert_class(module: str, name: str) -> type[Inert]:
    """Returns a new class that stands for ``module.name``."""
    return type("Inert", (Inert,), {"inert_name": f"{module}.{name}"})


def rebuild(kind: Any, *_: Any) -> Any:
    """Stands for ``copyreg._reconstructor``, which makes objects in old protocols."""
    return kind() if isinstance(kind, type) and issubclass(kind, Inert) else Inert()


def class_name(value: Any) -> str:
    """Returns the name in the file of an inert class or object, in one line."""
    name = getattr(value, "inert_name", None)
    name = name if isinstance(name, str) else type(value).__name__
    return " ".join(name.split())[:120]
