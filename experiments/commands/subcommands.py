"""Dispatch of commands with subcommands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from adaptive_nets.runtime.errors import UserError, did_you_mean
from experiments.commands.parsing import print_examples

Handler = Callable[[Sequence[str]], None]


def dispatch_subcommand(
    program: str,
    arguments: Sequence[str],
    handlers: Mapping[str, tuple[Handler, str]],
    *,
    examples: Sequence[str] = (),
) -> None:
    """Calls the handler that the first argument names, or lists the handlers.

    Args:
        program: name of the command in help and errors.
        arguments: arguments of the command.
        handlers: name -> (function of the remaining arguments, one line of help).
        examples: command lines printed below the help.

    Raises:
        UserError: the name is missing or unknown.
    """
    names = "|".join(handlers)
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {program} {names} [arguments]\n")
        for name, (_, text) in handlers.items():
            print(f"  {name:<12}{text}")
        print(f"\n{program} {next(iter(handlers))} --help explains one of them.")
        print_examples(examples)
        return
    if not arguments:
        raise UserError(f"{program} expects one of {names} (see: {program} --help)")
    name, *rest = arguments
    if name not in handlers:
        raise UserError(f"{program} has no {name!r}; {did_you_mean(name, handlers)}")
    handlers[name][0](rest)
