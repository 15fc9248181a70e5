"""adaptive-nets sweep: one run for each combination of values, here in turn or on a cluster."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import Range, Seed
from experiments.commands.launch import FORMS, show_job, split_job_arguments
from experiments.commands.output import console, hint
from experiments.commands.parsing import parse, print_error
from experiments.commands.run import chosen_experiment, default_folder, parse_flags
from experiments.commands.sweep_summary import planned_rows, show_plan, show_summary
from experiments.launch import kubernetes, slurm
from experiments.launch.combinations import (
    Combination,
    check_distinct,
    combinations,
    parse_values,
)
from experiments.launch.dry_run import folder_state
from experiments.launch.quoting import check_printable
from experiments.launch.request import RunRequest, Variant, job_name
from experiments.suite.experiment import Experiment, PresetName
from experiments.suite.registry import find_preset
from experiments.suite.run_inputs import RUN_FILE

PROGRAM = "adaptive-nets sweep"
EXAMPLES = (
    "adaptive-nets sweep {id} --values optimiser.learning_rate=0.1,0.01 --preset smoke",
    "adaptive-nets sweep {id} --values optimiser.learning_rate=0.1,0.01 --slurm > job.sh",
)
_SWITCHES = ("--slurm", "--jobset", "--dry-run", "--json")
# The name of a pod has at most 63 characters, with up to three digits of its combination.
_LONGEST_NAME = 47
_TAKEN = ("--values", "--out")


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Runs an experiment with every combination of some values, each in a folder of its own.

    The runs go in turn on this machine; the same command resumes an interrupted sweep and skips
    what is finished. With --slurm or --jobset it prints a job array for a cluster instead, with
    flags --job.FLAG as in 'adaptive-nets launch'. Every other value of the experiment is a flag, as
    in 'adaptive-nets run'.
    """

    id: tyro.conf.Positional[str]
    """Id, see 'adaptive-nets list'."""
    values: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """FIELD=VALUE,VALUE,...: values of a field; once for each field. The numbers of a field with
    several have spaces between."""
    preset: PresetName = "quick"
    """Preset of every run."""
    seeds: Annotated[int | None, Range(1, 100_000)] = None
    """Number of seeds of every run; that of the preset if not given."""
    first_seed: Seed = 0
    """First seed."""
    out: Path | None = None
    """Folder of the runs' folders; runs/ID/sweep-PRESET if not given."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    slurm: bool = False
    """Print a script for sbatch: a job array with a job for each combination."""
    jobset: bool = False
    """Print a JobSet for kubectl: an indexed job for each combination."""
    dry_run: bool = False
    """Print what would run, and where; write and start nothing."""
    json: bool = False
    """Print JSON."""


def _form(config: Any) -> type:
    """Returns `Sweep` extended by a flag for every value of a configuration."""
    field = (
        "config",
        Annotated[type(config), tyro.conf.arg(name="")],
        dataclasses.field(default=config),
    )
    form = dataclasses.make_dataclass("SweepWithValues", [field], bases=(Sweep,), frozen=True)
    form.__doc__ = Sweep.__doc__
    return form


def run_words(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments that every run of a sweep shares, as 'adaptive-nets run' takes them."""
    switches = {*_SWITCHES, *(f"--no-{switch[2:]}" for switch in _SWITCHES)}
    kept: list[str] = []
    skip = False
    for argument in arguments:
        flag, equals, _ = argument.partition("=")
        flag = flag.replace("_", "-")
        if skip:
            skip = False
        elif flag in _TAKEN:
            skip = not equals
        elif flag not in switches:
            kept.append(argument)
    return kept


def _checked_runs(
    made: Sequence[Combination], words: Sequence[str], preset: Any
) -> list[tuple[Combination, Any]]:
    """Parses the flags of every combination; returns each with its configuration.

    Raises:
        UserError: a value is of another type, out of its range, or does not go with the others.
    """
    given = {word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")}
    for flag in (flag for flag in made[0].flags if flag.startswith("--")):
        if flag in given:
            raise UserError(f"{flag} is given beside --values of it; expected one of the two")
    configs = []
    for combination in made:
        flags = [*words, *combination.flags]
        configs.append(parse_flags(preset.config, flags, program=PROGRAM).values)
    check_distinct(made, configs)
    return list(zip(made, configs, strict=True))


def main(arguments: Sequence[str]) -> None:
    """Runs the combinations in turn and prints a summary, or prints a job array."""
    check_printable(arguments)
    own, job = split_job_arguments(arguments)
    experiment, preset_name = chosen_experiment(own, Sweep, program=PROGRAM, examples=EXAMPLES)
    preset = find_preset(experiment, preset_name)
    options = parse(_form(preset.config), own, program=PROGRAM, examples=EXAMPLES)
    _check_kind(options, job)
    values = parse_values(options.values, options.config)
    words = run_words(own)
    runs = _checked_runs(combinations(values, options.config), words, preset)
    seeds = preset.seeds if options.seeds is None else options.seeds
    folder = default_folder(experiment, preset_name)
    folder = folder.with_name(f"sweep-{preset_name}")
    out = options.out or folder
    if (out / RUN_FILE).exists():
        raise UserError(
            f"--out is {str(out)!r}, the folder of a run; expected one for the folders of runs"
        )
    if options.slurm or options.jobset:
        request = RunRequest(
            arguments=tuple(words),
            config=options.config,
            name="",
            folder=folder,
            out=options.out,
            first_seed=options.first_seed,
            seeds=seeds,
            variants=tuple(Variant(c.flags, c.folder, config) for c, config in runs),
        )
        _print_job(options, job, request, f"{experiment.id}-sweep", preset_name)
        return
    indices = range(options.first_seed, options.first_seed + seeds)
    if options.dry_run:
        states = [folder_state(out / c.folder, indices) for c, _ in runs]
        rows = planned_rows([c for c, _ in runs], out, states, words)
        show_plan(list(values), rows, as_json=options.json)
        return
    rows = _run_in_turn(experiment, preset_name, runs, out, options, indices)
    show_summary(experiment, list(values), rows, as_json=options.json)
    failed = sum(row["state"] == "failed" for row in rows)
    if failed:
        raise UserError(f"{failed} of {len(rows)} runs failed; the same command runs them again")
    hint(f"adaptive-nets table {experiment.id} --results {out}")


def _check_kind(options: Any, job: Sequence[str]) -> None:
    if options.slurm and options.jobset:
        raise UserError("--slurm and --jobset are both given; expected one of them")
    if job and not (options.slurm or options.jobset):
        raise UserError(f"{job[0].replace('--', '--job.', 1)} is for --slurm or --jobset")
    if options.json and (options.slurm or options.jobset):
        raise UserError("--json is for runs on this machine; a script or manifest is no JSON")


def _print_job(
    options: Any, arguments: Sequence[str], request: RunRequest, experiment: str, preset: str
) -> None:
    kind, render = ("slurm", slurm.render) if options.slurm else ("k8s", kubernetes.render)
    job = parse(FORMS[kind], list(arguments), program=PROGRAM, prefix="job.")
    chosen = getattr(job, "name", None)
    name = job_name(chosen, experiment, preset)
    if chosen is None:
        name = name[:_LONGEST_NAME].strip("-")
    elif len(name) > _LONGEST_NAME:
        raise UserError(
            f"--job.name is {chosen!r}; expected at most {_LONGEST_NAME} characters for a sweep, "
            "whose jobs have a number in their names"
        )
    request = dataclasses.replace(request, name=name)
    show_job(kind, job, request, render, dry=options.dry_run)  # pyright: ignore[reportArgumentType]


def _run_in_turn(
    experiment: Experiment,
    preset: str,
    runs: Sequence[tuple[Combination, Any]],
    out: Path,
    options: Any,
    seeds: range,
) -> list[dict[str, Any]]:
    """Runs every combination that is not finished; returns the rows of the summary.

    A combination that fails is reported, and the others still run.
    """
    # Imported after all combinations are checked, since JAX takes seconds.
    import jax

    from adaptive_nets.runtime.interrupt import Interrupted
    from adaptive_nets.runtime.progress import ConsoleProgress
    from experiments.suite.execution import execute

    rows: list[dict[str, Any]] = []
    with ConsoleProgress(console(stderr=True)) as progress:
        for number, (combination, config) in enumerate(runs, start=1):
            folder = out / combination.folder
            state, reason, records = "finished", "", []
            progress.show(f"run {number} of {len(runs)}: {shlex.join(combination.flags)}")
            try:
                records = _finished(folder, config, seeds)
                if records is None:
                    records = execute(
                        experiment,
                        preset=preset,
                        config=config,
                        seeds=len(seeds),
                        first_seed=seeds[0],
                        out=folder,
                        data_dir=options.data_dir,
                        progress=progress,
                        announce=progress.show,
                    )
                    # Programs of one combination are of no use to the next.
                    jax.clear_caches()
                else:
                    progress.show(f"finished earlier, {folder}")
            except Interrupted as stop:
                progress.show(
                    f"adaptive-nets: stopped by {stop.signal_name} at step {stop.step} of run "
                    f"{number} of {len(runs)}, which is saved; the same command resumes from there"
                )
                raise SystemExit(stop.exit_code) from None
            except UserError as error:
                state, reason, records = "failed", str(error), []
                print_error(f"{combination.folder}: {error}")
            rows.append(
                {
                    "values": dict(combination.values),
                    "folder": str(folder),
                    "state": state,
                    "reason": reason,
                    "records": records,
                }
            )
    return rows


def _finished(folder: Path, config: Any, seeds: range) -> list[Any] | None:
    """Returns the records of a run whose seeds are all finished with these values, else None."""
    from experiments.suite import config as config_lib
    from experiments.suite.records import RECORD, read_record
    from experiments.suite.run_inputs import resolve_all

    paths = [folder / f"seed{seed}" / RECORD for seed in seeds]
    if not all(path.is_file() for path in paths):
        return None
    records = [read_record(path) for path in paths]
    for seed, record in zip(seeds, records, strict=True):
        inputs = resolve_all(config, seed=seed)
        if record.config_hash != config_lib.identity_hash(config, inputs):
            return None  # The run itself then says what differs.
    return records
