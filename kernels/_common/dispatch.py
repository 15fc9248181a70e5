"""Which implementation runs: chosen, named, or the first of several that can."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Requested = None | str | Sequence[str]
"""None chooses and may fall back; a name is that one or an error; a sequence is tried in order."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """What runs, for records.

    Attributes:
        implementation: its name.
        detail: how it computes, where it has more than one way.
        passed_over: name of every implementation that was asked first, and why it cannot run.
    """

    implementation: str
    detail: str = ""
    passed_over: tuple[tuple[str, str], ...] = ()


def first_supported(
    requested: Requested,
    implementations: Mapping[str, Callable[[], Any]],
    preferred: Sequence[str],
) -> tuple[Choice, Any]:
    """Calls implementations in order until one accepts.

    Args:
        requested: what the caller asked for.
        implementations: name -> function without arguments; it raises `NotImplementedError` where
            it is not for these inputs or not for this machine.
        preferred: order in which they are tried when nothing is requested.

    Returns:
        The choice, and what the function returned.

    Raises:
        ValueError: an unknown name, or an empty sequence.
        NotImplementedError: none of them can; the message gives the reason of each.
    """
    if requested is None:
        names = tuple(preferred)
    else:
        names = (requested,) if isinstance(requested, str) else tuple(requested)
    if not names:
        raise ValueError("implementation is an empty sequence; expected None, a name or names")
    for name in names:
        if name not in implementations:
            known = ", ".join(implementations)
            raise ValueError(f"implementation is {name!r}; expected None or of: {known}")
    reasons: list[tuple[str, str]] = []
    for name in names:
        try:
            result = implementations[name]()
        except NotImplementedError as error:
            reasons.append((name, str(error)))
        else:
            return Choice(name, passed_over=tuple(reasons)), result
    raise NotImplementedError("; ".join(f"{name}: {reason}" for name, reason in reasons))
