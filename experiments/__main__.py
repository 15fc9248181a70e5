"""The command line: ``adaptive-nets`` and ``python -m experiments``."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from adaptive_nets.runtime.errors import UserError, did_you_mean
from experiments.commands.parsing import print_error

# Name -> what it does; each is a module of its name in experiments.commands with a function
# main(arguments).
COMMANDS = {
    "list": "experiments, the paper's cell each one reproduces, cost and state",
    "show": "one experiment: resolved values, network, deviations from the paper",
    "run": "train and measure an experiment, or go on with an interrupted one",
    "launch": "scripts that run an experiment on a cluster: SLURM, Kubernetes, SSH",
    "table": "the paper's values beside ours",
    "report": "one HTML page with tables, curves and pictures",
    "models": "the networks by name, with parameters and multiply-accumulates",
    "data": "list, check and import data sets",
    "predict": "classes of image files, by the network of a run or by stored weights",
    "evaluate": "error of a stored network on a data set",
    "bench": "measure time: training, networks, kernels",
    "doctor": "devices, versions, data, and what works here",
    "publish": "add the records of a run to those that come with the code",
    "docs": "render the tables of the documentation again from the records",
}

# Commands that look papers up, and name those that cannot be loaded.
_OF_EXPERIMENTS = {"list", "show", "run", "launch", "table", "report", "publish", "docs"}

USAGE = """usage: adaptive-nets COMMAND [arguments]

Reproduces the tables of papers on convolutional networks that spend less.

{commands}

adaptive-nets COMMAND --help explains each one. To begin with, train a network in minutes (the data
come with this program), compare it with the paper, and use it:
  adaptive-nets run sparse_vd.table1.lenet-300-100-sparse
  adaptive-nets table sparse_vd.table1.lenet-300-100
  adaptive-nets report sparse_vd.table1.lenet-300-100
  adaptive-nets predict IMAGE... --run runs/sparse_vd.table1.lenet-300-100-sparse/quick"""


def usage() -> str:
    """What is printed without a command."""
    return USAGE.format(
        commands="\n".join(f"  {name:<10}{text}" for name, text in COMMANDS.items())
    )


def dispatch(arguments: Sequence[str]) -> None:
    """Calls the command that the first argument names.

    Raises:
        UserError: there is no such command.
    """
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(f"command {name!r} is unknown; {did_you_mean(name, COMMANDS)}")
    if name in _OF_EXPERIMENTS:
        from experiments.suite.registry import problems

        for line in problems():
            print_error(line)
    importlib.import_module(f"experiments.commands.{name}").main(rest)


def _silence_libraries() -> None:
    """Keeps libraries from talking over our own messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import logging

    # Orbax logs every error that it also raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, 2 for a user's mistake, 128 + n after signal n."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    _silence_libraries()
    try:
        dispatch(arguments)
    except UserError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("stopped by ^C")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away, as 'head' does; that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print_error(f"{error.strerror or error}{where}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
