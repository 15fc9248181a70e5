"""Error class for mistakes that the user can correct."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

# Known names that a message lists at most.
_LISTED = 12


class UserError(Exception):
    """A mistake in a flag, name, shape, file, checkpoint or data root.

    The message is one line: the argument, its value, the accepted values and, if there is one, the
    next step. The command line prints it without a traceback and exits with code 2.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns a hint for an unknown name: its closest match, else some of the known names.

    Args:
        name: name that the user typed.
        known: names that exist.

    Returns:
        A clause such as ``did you mean 'mnist'?`` or ``known: cifar10, mnist and 3 more``.
    """
    names = sorted(known)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    if nearest:
        return f"did you mean {nearest[0]!r}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"known: {', '.join(names[:_LISTED])}{more}" if names else "none is known"


def describe_os_error(error: OSError) -> str:
    """Returns one line for an error of the operating system: the place, the reason, a remedy."""
    place = str(error.filename) if error.filename is not None else "a file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{place} cannot be written: no space left on the disk; make room there and run the "
            "same command"
        )
    return f"{place}: {error.strerror or error}"
