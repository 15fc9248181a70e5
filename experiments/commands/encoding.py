"""Plain replacements for characters that an output stream cannot encode."""

from __future__ import annotations

import codecs
import io
import sys

_HANDLER = "adaptive_nets.plain"
# Other characters become a question mark.
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
    """Makes the standard streams print plain replacements for characters they cannot encode."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        # Python's default for standard error, "backslashreplace", prints character codes.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "backslashreplace"):
            stream.reconfigure(errors=_HANDLER)
