"""Output to terminals and files that lack characters of ours."""

from __future__ import annotations

import codecs
import io
import sys

_HANDLER = "adaptive_nets.plain"
# The rest becomes a question mark.
_PLAIN = {
    "–": "-", "—": "-", "…": "...", "±": "+/-", "∞": "inf", "×": "x", "−": "-", "≥": ">=",
    "≤": "<=", "─": "-", "━": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "•": "*",
    "→": "->",
}  # fmt: skip


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in unknown), error.end


def replace_unknown_characters() -> None:
    """Makes the standard streams print the nearest plain text for what they cannot encode."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        # "backslashreplace" is what Python gives standard error; it prints codes.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=_HANDLER)
