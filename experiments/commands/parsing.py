"""Parsing of typed flags into dataclasses, with errors of one line."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import check_ranges, described_ranges

_BOX = re.compile(r"[╭╮╰╯│─┌┐└┘|]+|-{5,}")
# Beginning of a flag within a message, but not of the hint to --help.
_FLAG = re.compile(r"(?<![\w-])--(?!help\b)(?=\w)")
_HELP_HINT = re.compile(r"^For full helptext, (run|see) .*$|^For full helptext, run:$")


def parse[T](
    form: type[T],
    arguments: Sequence[str],
    *,
    program: str,
    default: T | None = None,
    examples: Sequence[str] = (),
    prefix: str = "",
) -> T:
    """Reads command-line arguments into a dataclass.

    Args:
        form: dataclass whose field docstrings are the help texts.
        arguments: arguments without the program's name.
        program: name of the program in help and errors.
        default: instance with the default values; None for those of the class.
        examples: command lines printed below the help; see `fill_example`.
        prefix: beginning of the flags as the user types them, such as "job.", for messages.

    Raises:
        UserError: an argument is unknown, missing, of the wrong type or out of its range; one line
            that names it.
        SystemExit: help was asked for and printed.
    """
    screen, help_text = io.StringIO(), io.StringIO()
    options: dict[str, Any] = {} if default is None else {"default": default}
    try:
        # Tyro colours its help unless it is captured.
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(help_text):
            values = tyro.cli(form, args=list(arguments), prog=program, **options)
    except SystemExit as stop:
        if stop.code in (0, None):
            print(_with_ranges(help_text.getvalue(), form), end="")
            print_examples(examples)
            raise
        message = _one_line(screen.getvalue(), program)
        raise UserError(_FLAG.sub(f"--{prefix}", message)) from None
    check_ranges(values, prefix)
    return values


def _with_ranges(text: str, form: type) -> str:
    """Adds the range of a value to the line of its flag in a help text."""
    ranges = {name.replace("_", "-"): words for name, words in described_ranges(form).items()}

    def extended(match: re.Match[str]) -> str:
        words = ranges.get(match["name"])
        return f"{match[0].rstrip()}  {words}" if words else match[0]

    return re.sub(r"^  --(?P<name>[\w.-]+)(?: [^\n]*)?$", extended, text, flags=re.MULTILINE)


def _one_line(box: str, program: str) -> str:
    """Converts tyro's framed message to one sentence."""
    lines = [_BOX.sub(" ", line).strip() for line in box.splitlines()]
    lines = [line for line in lines if line and not _HELP_HINT.match(line)]
    # The frame's title names the kind of error; the sentences below say the same in full.
    body = " ".join(lines[1:] or lines or ["the arguments cannot be read"])
    body = body.replace(f"{program} --help", "").strip()
    match = re.match(
        r"Error parsing (?P<name>\S+): (?P<why>.*?)\s*Argument helptext: (?P<help>.*)$", body
    )
    if match:
        body = f"{match['name']}: {match['why']}; expected {match['help']}"
    return f"{body.rstrip('.')} (see: {program} --help)"


def print_examples(examples: Sequence[str]) -> None:
    """Prints example command lines below a help text."""
    if examples:
        print("example:" if len(examples) == 1 else "examples:")
    for example in examples:
        print(f"  {fill_example(example)}")


def fill_example(text: str) -> str:
    """Replaces {id} and {paper} in an example by an experiment that needs no data to be fetched."""
    if "{" not in text:
        return text
    from adaptive_nets.data.embedded import EMBEDDED
    from experiments.suite.registry import experiments

    entries = list(experiments().values())
    chosen = next((e for e in entries if e.data.startswith(EMBEDDED)), entries[0])
    return text.replace("{id}", chosen.id).replace("{paper}", chosen.paper)


def print_error(message: str) -> None:
    """Prints one line on standard error, if somebody reads it."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"adaptive-nets: {message}", file=sys.stderr, flush=True)
