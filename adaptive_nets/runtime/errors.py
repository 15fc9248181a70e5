"""The one kind of error that is the user's to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a flag, name, shape, file, checkpoint or data root.

    The message is one line: what was given, its value, what was expected and, where there is one,
    the next step. The command line prints it alone, without a traceback, and exits with code 2.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ends an error message about an unknown name: the nearest known one, or all of them if few.

    Args:
        name: what the user typed.
        known: the names that exist.

    Returns:
        A clause such as ``did you mean 'mnist'?``, or ``known: cifar10, mnist``.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    return f"known: {', '.join(names)}" if names else "none is known"
