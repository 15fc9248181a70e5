"""adaptive-nets run: train and measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DistributedConfig, require
from experiments.commands.parsing import parse, print_error
from experiments.suite.experiment import PresetName
from experiments.suite.registry import experiments, find_experiment, find_preset

PROGRAM = "adaptive-nets run"


@dataclasses.dataclass(frozen=True)
class Run:
    """Trains and measures an experiment; run again, it goes on where it stopped.

    Every value of the experiment is a flag: 'adaptive-nets run ID --help' lists them with this
    preset's values.
    """

    id: tyro.conf.Positional[str]
    """Id, see 'adaptive-nets list'."""
    preset: PresetName = "quick"
    """smoke: under a minute; quick: minutes; paper: the paper's schedule and data."""
    seeds: int | None = None
    """Number of seeds; that of the preset where not given."""
    out: Path | None = None
    """Folder of the run; runs/ID/PRESET where not given."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes, started by a scheduler or by hand, as one run."""


def form_with_config_flags(config: Any) -> type:
    """The form above with every value of a configuration as a flag."""
    values = (
        "values",
        Annotated[type(config), tyro.conf.arg(name="")],
        dataclasses.field(default=config),
    )
    form = dataclasses.make_dataclass("RunWithValues", [values], bases=(Run,), frozen=True)
    form.__doc__ = Run.__doc__
    return form


def peek_id_and_preset(arguments: Sequence[str]) -> tuple[str | None, str]:
    """Id and preset among the arguments, before the values that they decide can be read."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    preset: str = Run.preset
    for i, argument in enumerate(arguments):
        if argument == "--preset" and i + 1 < len(arguments):
            preset = arguments[i + 1]
        elif argument.startswith("--preset="):
            preset = argument.split("=", 1)[1]
    return name, preset


def next_steps(name: str, out: Path) -> list[str]:
    """Returns the commands that show a finished run and use its network."""
    from adaptive_nets.models.weights.locate import find_network

    lines = [f"next: adaptive-nets table {name}", f"      adaptive-nets report {name}"]
    try:
        find_network(out)
    except UserError:
        return lines  # Not every experiment trains a network.
    return [*lines, f"      adaptive-nets predict IMAGE... --run {out}"]


def main(arguments: Sequence[str]) -> None:
    """Runs an experiment and prints its numbers beside the paper's."""
    name, preset_name = peek_id_and_preset(arguments)
    if name is None:
        if not arguments or arguments[0] not in ("-h", "--help"):
            raise UserError(
                f"{PROGRAM} expects the id of an experiment first, such as "
                f"{next(iter(experiments()), 'PAPER.TABLE.ROW')} (adaptive-nets list shows all)"
            )
        parse(Run, arguments, program=PROGRAM)
        return
    experiment = find_experiment(name)
    preset = find_preset(experiment, preset_name)
    options = parse(form_with_config_flags(preset.config), arguments, program=PROGRAM)
    seeds = preset.seeds if options.seeds is None else options.seeds
    require(seeds > 0, "seeds", seeds, "a positive number")
    out = options.out or Path("runs") / experiment.id / preset_name

    # JAX takes seconds to import; everything that can be wrong with the flags is known by now.
    from adaptive_nets.runtime.interrupt import Interrupted
    from adaptive_nets.runtime.progress import ConsoleProgress, SilentProgress
    from adaptive_nets.training.distributed import is_process_0, process_group
    from experiments.suite.execution import execute

    with ConsoleProgress() as console, process_group(options.distributed, print_error):
        progress = console if is_process_0() else SilentProgress()
        try:
            records = execute(
                experiment,
                preset=preset_name,
                config=options.values,
                seeds=seeds,
                out=out,
                data_dir=options.data_dir,
                progress=progress,
                announce=progress.show,
            )
        except Interrupted as stop:
            progress.show(
                f"adaptive-nets: stopped by {stop.signal_name} at step {stop.step}, which is "
                "saved; the same command goes on from there"
            )
            raise SystemExit(stop.exit_code) from None
        if not is_process_0():
            return

    from experiments.suite.comparison import VERDICT_RULES, compare
    from experiments.suite.render import terminal_table

    console = Console()
    for title, cells in compare([experiment], records).items():
        ours = [cell for cell in cells if cell.verdict != "cited"]
        console.print(terminal_table(title, ours))
    console.print(VERDICT_RULES, style="dim")
    for line in next_steps(experiment.id, out):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
