"""Quoting and validation of what is written into scripts and manifests."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from adaptive_nets.runtime.errors import UserError

TEMPLATES = Path(__file__).parent
_PLACE = re.compile(r"@([A-Z_]+)@")

# Unicode categories of invisible characters: controls, formats, surrogates, private and unassigned
# code points, separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def fill_template(name: str, values: Mapping[str, object]) -> str:
    """Fills the placeholders of a template; drops lines that only hold an empty placeholder.

    Args:
        name: file of the template, in this folder.
        values: quoted values by placeholder.
    """
    lines = []
    for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines():
        filled = _PLACE.sub(lambda match: str(values[match[1]]), line)
        if filled.strip() or not line.strip():
            lines.append(filled)
    return "\n".join(lines) + "\n"


def check_printable(words: Iterable[str]) -> None:
    """Raises a `UserError` for an argument with a line break or another invisible character.

    No quoting carries these through all of a shell, YAML and #SBATCH lines.
    """
    for word in words:
        for character in word:
            if unicodedata.category(character) in _INVISIBLE:
                raise UserError(
                    f"argument {word!r} contains the character U+{ord(character):04X}; expected "
                    "printable characters on one line"
                )


def check_form(flag: str, value: str, form: str, expected: str) -> None:
    """Raises a `UserError` unless the whole value has the form of a regular expression."""
    if not re.fullmatch(form, value, re.ASCII):
        raise UserError(f"--{flag} is {value!r}; expected {expected}")


def shell_words(words: Iterable[str]) -> str:
    """Returns a command line that a POSIX shell reads as these words."""
    return shlex.join(words)


def kubernetes_shell_words(words: Iterable[str]) -> str:
    """Returns a command line for a shell in a container.

    Kubernetes replaces ``$(NAME)`` and ``$$`` in arguments before the shell reads them. Two
    quotation marks keep the characters apart, and are nothing to the shell.
    """
    return re.sub(r"\$(?=[$(])", "$''", shell_words(words))


def yaml_string(text: str) -> str:
    """Returns a double-quoted YAML scalar; JSON strings of printable characters are such."""
    return json.dumps(text, ensure_ascii=False)
