"""adaptive-nets bench kernels: perforated and masked convolutions beside the dense one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.files import write_text_atomically
from adaptive_nets.training.config import require
from adaptive_nets.training.ranges import Positive, Range, Seconds
from experiments.commands.layout import Column, rounded
from experiments.commands.output import is_stdout, is_terminal, note, show_listing, write_measured
from experiments.commands.parsing import parse

Kind = Literal["grid", "random", "backward", "unit", "masked"]
EXAMPLES = ("adaptive-nets bench kernels 'VGG*' --kinds grid random --batch 8",)
CASES = tuple(
    Column(key)
    for key in (
        "kind", "layer", "batch", "fraction", "output", "speedup", "share", "implementation",
        "seconds",
    )
)  # fmt: skip
SUMMARY = (
    Column("name", "what"),
    Column("measure", rank=3),
    Column("cases", rank=6, align="right"),
    Column("mean", rank=1, align="right", text=rounded(2)),
    Column("mean_beside_xla", "beside XLA", rank=5, align="right", text=rounded(2)),
    Column("least", rank=7, align="right", text=rounded(2)),
    Column("slowest", "slowest, x", rank=8, align="right", text=rounded(2)),
    Column("at_least", "aim", rank=4, align="right", text=rounded(2)),
    Column("met", "", rank=2, style={"met": "green", "missed": "yellow"}),
)


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Times perforated and masked convolution beside the dense convolution of the same run.

    The defaults take a few minutes; more batch sizes, shares and seconds take longer.

    Kinds: grid and random (fixed masks), backward (gradients), unit (whole residual units with a
    run-time mask), masked (one convolution with a run-time mask).
    """

    pattern: tyro.conf.Positional[str] = "*"
    """Shell pattern of layers, such as 'VGG*' or 'ResNet-101 conv4'."""
    kinds: tuple[Kind, ...] = ("grid", "random", "backward", "unit", "masked")
    """Kinds of comparison."""
    batch: Annotated[tuple[int, ...], Range(1, 2**16, least=1)] = (8,)
    """Batch sizes."""
    keep: Annotated[tuple[float, ...], Range(0, 1, open_low=True, least=1)] = (0.25,)
    """Shares of kept positions of fixed masks; 1, 1/2 or 1/4 for grids."""
    active: Annotated[tuple[float, ...], Range(0, 1, least=1)] = (0.5, 0.25)
    """Shares of active positions of run-time masks."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of inputs and weights."""
    implementation: str | None = None
    """Implementation to run: xla, dense, reference, pallas_triton ...; the best if not given."""
    seconds: Seconds = 0.25
    """Approximate time of a comparison, in seconds."""
    most_gmacs: Positive = 3.0
    """Largest cost of a batch in 1e9 multiply-accumulates; larger layers are skipped."""
    torch_python: Path | None = None
    """Interpreter that has PyTorch, whose dense convolution is then timed too."""
    json: Path | None = None
    """File for the measured values; - prints them."""
    figure: Path | None = None
    """SVG file for the speed-ups."""


def main(arguments: Sequence[str]) -> None:
    """Measures, prints, writes."""
    options = parse(Kernels, arguments, program="adaptive-nets bench kernels", examples=EXAMPLES)
    _check(options)
    from experiments.bench import kernel_summary, kernels
    from experiments.bench.torch_peer import TorchPeer

    settings = kernels.Settings(
        kinds=options.kinds,
        pattern=options.pattern,
        batches=options.batch,
        keeps=options.keep,
        fractions=options.active,
        dtype=options.dtype,
        seconds=options.seconds,
        most_macs=1e9 * options.most_gmacs,
        implementation=options.implementation,
    )
    peer = None if options.torch_python is None else TorchPeer(options.torch_python)
    cases: list[dict[str, Any]] = []
    try:
        for comparison in kernels.compare(settings, peer.convolution if peer else None):
            case = kernel_summary.record(comparison)
            cases.append(case)
            note(line(case))
    except NotImplementedError as error:
        raise UserError(f"--implementation {options.implementation}: {error}") from error
    except KeyboardInterrupt:
        note(f"interrupted after {len(cases)} cases; the listing has these")
    finally:
        if peer is not None:
            peer.close()
    if not is_stdout(options.json):
        _show(cases)
    if options.figure is not None:
        from experiments.bench.kernel_figure import draw

        write_text_atomically(options.figure, draw(cases))
        note(f"drawn to {options.figure}")
    packages = {} if peer is None else {"torch": peer.version}
    values = {"settings": dataclasses.asdict(settings), "cases": cases}
    write_measured(options.json, "kernels", values, **packages)


def _show(cases: Sequence[dict[str, Any]]) -> None:
    """Prints the summary on a terminal, which already shows the cases; the cases in a pipe."""
    from experiments.bench import kernel_summary

    if is_terminal():
        rows = [
            {**row, "met": "met" if row["met"] else "missed"}
            for row in kernel_summary.summary(cases)
        ]
        show_listing(SUMMARY, rows)
    else:
        show_listing(CASES, cases)
    note(
        "share: of the theoretical speed-up over the better dense convolution; medians of rounds "
        "taken in turns"
    )
    for layer, batch, share in kernel_summary.break_evens(cases):
        until = "never" if share is None else f"up to {100 * share:.0f} % active"
        note(f"a run-time mask pays {until}: {layer}, batch {batch}")


def line(case: dict[str, Any]) -> str:
    """Formats a case in one line."""
    times = "  ".join(f"{name} {1e3 * value:.2f} ms" for name, value in case["seconds"].items())
    share = "" if case["share"] is None else f" ({case['share']:.2f} of theory)"
    return (
        f"{case['kind']:<9}{case['layer']:<18}batch {case['batch']:<4}"
        f"{100 * case['fraction']:5.1f} % {case['output']:<10}{case['speedup']:6.2f} x{share}  "
        f"{times}  {case['implementation']}"
    )


def _check(options: Kernels) -> None:
    require(bool(options.kinds), "kinds", options.kinds, "at least one kind")
    for keep in options.keep:
        if "grid" in options.kinds:
            require(keep in (1.0, 0.5, 0.25), "keep", keep, "1, 0.5 or 0.25 for --kinds grid")
    import fnmatch

    from kernels._common.layer_shapes import LAYERS, UNITS
    from kernels.perforated_conv import IMPLEMENTATIONS

    labels = [item.label for item in (*LAYERS, *UNITS)]
    if not fnmatch.filter(labels, options.pattern):
        raise UserError(
            f"no layer matches {options.pattern!r}; {did_you_mean(options.pattern, labels)}"
        )
    if options.implementation is not None and options.implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"--implementation is {options.implementation!r}; "
            f"{did_you_mean(options.implementation, IMPLEMENTATIONS)}"
        )
