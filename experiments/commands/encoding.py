"""Plain replacements for characters that an output stream cannot encode."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_DEFAULTS = ("strict", "backslashreplace", "surrogateescape")
_HANDLER = "adaptive_nets.plain"
# Other characters become a question mark.
_PLAIN = {
    "–": "-", "—": "-", "…": "...", "±": "+/-", "∞": "inf", "×": "x", "−": "-", "≥": ">=",
    "≤": "<=", "─": "-", "━": "-", "│": "|", "╭": "+", "╮": "+", "╰": "+", "╯": "+", "•": "*",
    "→": "->", "·": "*", "²": "^2", "³": "^3", "“": '"', "”": '"', "’": "'", "‘": "'",
}  # fmt: skip


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(map(_plain, unknown)), error.end


def _plain(character: str) -> str:
    """Returns an ASCII replacement: a Greek letter's name, a letter without its accent, or "?"."""
    if character in _PLAIN:
        return _PLAIN[character]
    name = unicodedata.name(character, "")
    if name.startswith("GREEK SMALL LETTER") or name.startswith("GREEK CAPITAL LETTER"):
        return name.split()[3].lower()
    folded = unicodedata.normalize("NFKD", character)
    return "".join(part for part in folded if part.isascii()) or "?"


def replace_unknown_characters() -> None:
    """Makes the standard streams print plain replacements for characters they cannot encode."""
    codecs.register_error(_HANDLER, _replace)
    for stream in (sys.stdout, sys.stderr):
        # Python's defaults: "backslashreplace", for standard error, prints character codes;
        # "surrogateescape", in the C locale, only helps names of files.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _DEFAULTS:
            stream.reconfigure(errors=_HANDLER)
