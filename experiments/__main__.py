"""The command line: ``adaptive-nets`` and ``python -m experiments``."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import adaptive_nets
from adaptive_nets.data.folders import DEFAULT_ROOT
from adaptive_nets.runtime.compiled_programs import keep_compiled_programs
from adaptive_nets.runtime.errors import UserError, describe_os_error, did_you_mean
from adaptive_nets.runtime.files import naming
from adaptive_nets.runtime.platforms import absent_platform, check_requested_platform
from experiments.commands import complete
from experiments.commands.catalogue import COMMANDS, GROUPS
from experiments.commands.encoding import replace_unknown_characters
from experiments.commands.parsing import fill_example, print_error

STANDARD_OUTPUT = "standard output"

# Commands that look papers up, and name those that cannot be loaded.
_OF_EXPERIMENTS = {"list", "show", "run", "sweep", "launch", "table", "report", "publish", "docs"}

# Commands whose compiled programs are kept. Benchmarks measure compilation too.
_OF_PROGRAMS = {"run", "sweep", "evaluate", "predict", "ponder", "export"}

# Commands of a single process that need a device, but print or read something first.
_OF_DEVICES = {"bench", "evaluate", "predict", "ponder", "export"}

USAGE = """usage: adaptive-nets COMMAND [arguments]

Reproduces, row by row, the tables of papers on convolutional networks that
spend less. A run gives a record beside the paper's value, and a network to use.

{commands}

Three commands that build on each other; the first trains a small network:
{examples}

adaptive-nets COMMAND --help explains a command; adaptive-nets --version."""

EXAMPLES = (
    "adaptive-nets run {id} --preset quick",
    "adaptive-nets table {id}",
    "adaptive-nets predict IMAGE... --run runs/{id}/quick",
)


def usage() -> str:
    """Returns what is printed without a command."""
    lines = []
    for title, commands in GROUPS.items():
        lines.append(title)
        lines += [f"  {name:<12}{text}" for name, text in commands.items()]
    examples = "\n".join(f"  {fill_example(example)}" for example in EXAMPLES)
    return USAGE.format(commands="\n".join(lines), examples=examples)


def dispatch(arguments: Sequence[str]) -> None:
    """Calls the command that the first argument names.

    Raises:
        UserError: there is no such command.
    """
    name, *rest = arguments
    if name == "complete":
        # Called by the scripts of 'completion', and by nobody else.
        complete.main(rest)
        return
    if name not in COMMANDS:
        raise UserError(f"command {name!r} is unknown; {did_you_mean(name, COMMANDS)}")
    if name in _OF_EXPERIMENTS:
        from experiments.suite.registry import problems

        for line in problems():
            print_error(line)
    if name in _OF_DEVICES and not {"-h", "--help"} & set(rest):
        check_requested_platform()
    if name in _OF_PROGRAMS:
        keep_compiled_programs(f"{DEFAULT_ROOT}/compiled")
    importlib.import_module(f"experiments.commands.{name}").main(rest)


def _silence_libraries() -> None:
    """Silences the logs of libraries, which repeat our own messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import logging

    # Orbax logs every error that it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # asyncio logs what the remaining writes of a failed checkpoint raise.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _run_command(arguments: Sequence[str]) -> None:
    """Runs a command; raises what it raises, also if its output cannot be written."""
    try:
        if not arguments or arguments[0] in ("-h", "--help", "help"):
            print(usage())
        elif arguments[0] in ("-V", "--version"):
            print(f"adaptive-nets {adaptive_nets.__version__}")
        else:
            _silence_libraries()
            dispatch(arguments)
    finally:
        # A full disk or a closed pipe shows when the buffer is written, and not at exit.
        if sys.stdout is not None:
            with naming(Path(STANDARD_OUTPUT)):
                sys.stdout.flush()


def _is_of_print(error: OSError) -> bool:
    """Returns whether an error was raised by printing: in a command, or in Rich's console."""
    place = list(traceback.walk_tb(error.__traceback__))[-1][0].f_globals.get("__name__", "")
    return place.startswith(("experiments.", "rich.", "__main__"))


def _discard_output() -> None:
    """Lets the interpreter flush what is left of its streams into nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(null, stream.fileno())


def _out_of_memory_text(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (
        f"out of memory ({text[0][:160] if text else 'MemoryError'}); use smaller batches "
        "(--data.batch-size, --data.eval-batch-size) or more parts (--data.accumulation)"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Returns whether Python or, by the name of its error, XLA has run out of memory."""
    return isinstance(error, MemoryError) or (
        type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
        and "RESOURCE_EXHAUSTED" in str(error)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for a user's mistake, 128 + n after signal n."""
    arguments = sys.argv[1:] if arguments is None else arguments
    replace_unknown_characters()
    try:
        _run_command(arguments)
    except UserError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("stopped by ^C")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away, as 'head' does; that is its right.
        _discard_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is None and _is_of_print(error):
            error.filename = STANDARD_OUTPUT
        print_error(describe_os_error(error))
        if error.filename == STANDARD_OUTPUT:
            _discard_output()
        return 2
    except Exception as error:
        mistake = absent_platform(error)
        if mistake is None and not _is_out_of_memory(error):
            raise
        print_error(str(mistake) if mistake is not None else _out_of_memory_text(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
