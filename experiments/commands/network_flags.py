"""Flags that name a trained network: a run, or a network of the zoo with a file of weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptive_nets.runtime.errors import UserError


def check_network_flags(
    program: str,
    run_words: str,
    run: Path | None,
    model: str | None,
    weights: Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> None:
    """Checks that the flags name one network.

    Args:
        program: name of the command, for messages.
        run_words: how the command names a run, such as "--run DIR".
        run: folder of a run.
        model: name of a network of the zoo.
        weights: file of its weights.
        mean: mean of the normalisation, for a file of another tool.
        std: deviation of the normalisation, likewise.

    Raises:
        UserError: the flags name no network, two, or half of one.
    """
    by_name = model is not None or weights is not None
    if (run is not None) == by_name:
        raise UserError(
            f"{program} expects either {run_words} or --model NAME --weights FILE "
            f"(see: {program} --help)"
        )
    if run is not None:
        if mean is not None or std is not None:
            raise UserError(
                "--mean and --std are for --weights; a run stores its normalisation, so leave them "
                "out"
            )
    elif model is None or weights is None:
        missing = "--model NAME" if model is None else "--weights FILE"
        raise UserError(f"--model and --weights belong together; {missing} is missing")
