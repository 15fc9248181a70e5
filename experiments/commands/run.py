"""adaptive-nets run: train and measure."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DistributedConfig
from adaptive_nets.training.ranges import Range, Seed
from experiments.commands.output import console, hint
from experiments.commands.parsing import fill_example, parse, print_error
from experiments.suite.experiment import Experiment, PresetName
from experiments.suite.registry import find_experiment, find_preset

PROGRAM = "adaptive-nets run"
EXAMPLES = (
    "adaptive-nets run {id} --preset quick",
    "adaptive-nets run {id} --preset paper --seeds 5 --out runs/mine",
)


@dataclasses.dataclass(frozen=True)
class Run:
    """Trains and measures an experiment; the same command resumes an interrupted run.

    Every value of the experiment is a flag: 'adaptive-nets run ID --help' lists them with this
    preset's values.
    """

    id: tyro.conf.Positional[str]
    """Id, see 'adaptive-nets list'."""
    preset: PresetName = "quick"
    """smoke: a few steps, to check that it runs; quick: a small measurement; paper: the paper's
    schedule and data. 'adaptive-nets show ID' lists the measured time of each."""
    seeds: Annotated[int | None, Range(1, 100_000)] = None
    """Number of seeds; that of the preset if not given."""
    first_seed: Seed = 0
    """First seed; with --seeds 1 a run of one seed alone, as in a job array."""
    out: Path | None = None
    """Folder of the run; runs/ID/PRESET if not given."""
    fresh: bool = False
    """Start from step 0; an earlier run in the folder is moved to FOLDER.earlier-1."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    wandb: str | None = None
    """Project of Weights & Biases, [ENTITY/]PROJECT, that gets the metrics too; needs the extra
    wandb."""
    distributed: DistributedConfig = dataclasses.field(default_factory=DistributedConfig)
    """Several processes, started by a scheduler or by hand, as one run."""


def form_with_config_flags(config: Any) -> type:
    """Returns `Run` extended by a flag for every value of a configuration."""
    values = (
        "values",
        Annotated[type(config), tyro.conf.arg(name="")],
        dataclasses.field(default=config),
    )
    form = dataclasses.make_dataclass("RunWithValues", [values], bases=(Run,), frozen=True)
    form.__doc__ = Run.__doc__
    return form


def parse_flags(
    config: Any, arguments: Sequence[str], *, program: str, examples: Sequence[str] = ()
) -> Any:
    """Parses the arguments of a run into a `Run` whose `values` are a configuration.

    Raises:
        UserError: an argument is unknown or of the wrong type, or a value is out of its range.
    """
    return parse(form_with_config_flags(config), arguments, program=program, examples=examples)


def peek_id_and_preset(arguments: Sequence[str]) -> tuple[str | None, str]:
    """Finds id and preset in the arguments; the flags to parse depend on them."""
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    preset: str = Run.preset
    for i, argument in enumerate(arguments):
        if argument == "--preset" and i + 1 < len(arguments):
            preset = arguments[i + 1]
        elif argument.startswith("--preset="):
            preset = argument.split("=", 1)[1]
    return name, preset


def chosen_experiment(
    arguments: Sequence[str], form: type, *, program: str, examples: Sequence[str]
) -> tuple[Experiment, str]:
    """Returns the experiment whose id comes first, and the name of its preset.

    ``--help`` without an id prints the help of `form` and ends.

    Raises:
        UserError: there is no id, or the experiment is unknown.
    """
    name, preset = peek_id_and_preset(arguments)
    if name is None:
        if not arguments or arguments[0] not in ("-h", "--help"):
            raise UserError(
                f"{program} expects the id of an experiment first, such as "
                f"{fill_example('{id}')} (adaptive-nets list shows all)"
            )
        parse(form, arguments, program=program, examples=examples)
        raise SystemExit(0)
    return find_experiment(name), preset


def next_steps(name: str, out: Path) -> list[str]:
    """Returns the commands that show a finished run and use its network."""
    from adaptive_nets.models.weights.locate import find_network

    commands = [f"adaptive-nets table {name}", f"adaptive-nets report {name}"]
    try:
        find_network(out)
    except UserError:
        return commands  # Not every experiment trains a network.
    return [*commands, f"adaptive-nets predict IMAGE... --run {out}"]


def default_folder(experiment: Experiment, preset: str) -> Path:
    """Returns runs/ID/PRESET; the folder of an earlier id where a run was begun under that."""
    folders = [Path("runs") / name / preset for name in (experiment.id, *experiment.aliases)]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _metrics_to_wandb(experiment: Experiment, options: Any) -> contextlib.AbstractContextManager:
    """Returns the block within which trainings also write to --wandb, if it is given."""
    if options.wandb is None:
        return contextlib.nullcontext()
    from adaptive_nets.training.further_writers import further_writers
    from adaptive_nets.training.wandb_writer import WandbWriter
    from experiments.suite import config as config_lib

    def writer(directory: Path, resume_step: int) -> WandbWriter:
        return WandbWriter(
            directory,
            resume_step=resume_step,
            project=options.wandb,
            name=f"{experiment.id} {options.preset} {directory.name}",
            config=config_lib.to_dict(options.values),
        )

    return further_writers(writer)


def main(arguments: Sequence[str]) -> None:
    """Runs an experiment and prints its numbers beside the paper's."""
    experiment, preset_name = chosen_experiment(arguments, Run, program=PROGRAM, examples=EXAMPLES)
    preset = find_preset(experiment, preset_name)
    options = parse_flags(preset.config, arguments, program=PROGRAM, examples=EXAMPLES)
    seeds = preset.seeds if options.seeds is None else options.seeds
    out = options.out or default_folder(experiment, preset_name)

    if options.wandb is not None:
        from adaptive_nets.training.wandb_writer import check_wandb

        check_wandb()
    # Imported after all flags are checked, since JAX takes seconds.
    from adaptive_nets.runtime.interrupt import Interrupted
    from adaptive_nets.runtime.progress import ConsoleProgress, SilentProgress
    from adaptive_nets.training.distributed import is_process_0, process_group
    from experiments.suite.execution import execute

    with (
        ConsoleProgress(console(stderr=True)) as bar,
        _metrics_to_wandb(experiment, options),
        process_group(
            options.distributed,
            print_error,
            folder=out,
            # A flag --fresh would start from step 0 again.
            command=shlex.join(["adaptive-nets", "run", *(a for a in arguments if a != "--fresh")]),
        ),
    ):
        progress = bar if is_process_0() else SilentProgress()
        try:
            records = execute(
                experiment,
                preset=preset_name,
                config=options.values,
                seeds=seeds,
                first_seed=options.first_seed,
                out=out,
                data_dir=options.data_dir,
                fresh=options.fresh,
                progress=progress,
                announce=progress.show,
            )
        except Interrupted as stop:
            progress.show(
                f"adaptive-nets: stopped by {stop.signal_name} at step {stop.step}, which is "
                "saved; the same command resumes from there"
            )
            raise SystemExit(stop.exit_code) from None
        if not is_process_0():
            return

    from experiments.commands.table import show_comparison

    show_comparison([experiment], records, cited=False)
    hint(*next_steps(experiment.id, out))
