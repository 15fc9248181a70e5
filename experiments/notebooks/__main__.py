"""Executes the notebooks in turn and writes them as Jupyter notebooks with outputs.

python -m experiments.notebooks                      all of them, into notebooks/
python -m experiments.notebooks 02 08 --out DIR      some of them
python -m experiments.notebooks 01 --set STEPS=200   with another value of a parameter
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from experiments.notebooks.execution import CellError, execute, to_jupyter, write_jupyter
from experiments.notebooks.percent import FOLDER, find_notebooks

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class _Parser(argparse.ArgumentParser):
    """Parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def main(arguments: list[str] | None = None, *, folder: Path = FOLDER) -> int:
    """Executes notebooks and prints a line for each: name, seconds, figures, file.

    Args:
        arguments: command line; None for that of the process.
        folder: folder of the notebooks.

    Returns:
        0; 1 if a notebook failed, with one line for each that did; 2 for a mistake in the command;
        128 + its number after a signal.
    """
    try:
        options = _parse(arguments)
        paths = find_notebooks(options.names, folder)
        options.out.mkdir(parents=True, exist_ok=True)
    except UserError as error:
        return _refuse(error)
    except OSError as error:
        return _refuse(f"--out is {str(options.out)!r}, no usable folder: {error.strerror}")
    failed = 0
    for path in paths:
        began = time.monotonic()
        try:
            executed = execute(path, dict(options.set))
            target = options.out / f"{path.stem}.ipynb"
            write_jupyter(target, to_jupyter(executed, repository=options.repository))
        except UserError as error:
            return _refuse(error)
        except OSError as error:
            return _refuse(f"{error.filename} cannot be written: {error.strerror}")
        except (KeyboardInterrupt, Interrupted) as error:
            print(f"notebooks: stopped in {path.name}; earlier ones are written", file=sys.stderr)
            return getattr(error, "exit_code", 130)
        except CellError as error:
            failed += 1
            print(f"notebooks: {error}", file=sys.stderr, flush=True)
            continue
        if options.text:
            print(executed.text, end="")
        seconds = time.monotonic() - began
        figures = len(executed.figures)
        print(f"{path.stem}\t{seconds:.0f} s\t{figures} figures\t{target}", flush=True)
    return 1 if failed else 0


def _refuse(message: object) -> int:
    print(f"notebooks: {message}", file=sys.stderr)
    return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m experiments.notebooks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="number or name of a notebook; default: all"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("notebooks"), metavar="DIR",
        help="folder of the .ipynb files; default: notebooks",
    )  # fmt: skip
    parser.add_argument(
        "--set", type=_assignment, action="append", default=[], metavar="NAME=VALUE",
        help="value of a parameter, a Python literal or text",
    )  # fmt: skip
    parser.add_argument(
        "--repository", type=_repository, metavar="OWNER/NAME",
        help="GitHub repository of a badge that opens the notebooks in Colab",
    )  # fmt: skip
    parser.add_argument("--text", action="store_true", help="print what the cells print, too")
    return parser.parse_args(arguments)


def _assignment(text: str) -> tuple[str, Any]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}; expected NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _repository(text: str) -> str:
    if not _REPOSITORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected OWNER/NAME")
    return text


if __name__ == "__main__":
    sys.exit(main())
