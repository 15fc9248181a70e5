"""adaptive-nets launch: scripts for clusters, from the same flags as a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adaptive_nets.runtime.errors import UserError
from experiments.commands.output import show_fields
from experiments.commands.parsing import parse
from experiments.commands.run import default_folder, parse_flags, peek_id_and_preset
from experiments.commands.subcommands import dispatch_subcommand
from experiments.launch import kubernetes, slurm, ssh
from experiments.launch.dry_run import describe_job
from experiments.launch.quoting import check_printable
from experiments.launch.request import RunRequest, job_name
from experiments.suite.registry import find_experiment, find_preset

PROGRAM = "adaptive-nets launch"
EXAMPLES = {
    "slurm": ("adaptive-nets launch slurm {id} --preset paper --job.nodes 2 > job.sh",),
    "k8s": ("adaptive-nets launch k8s {id} --out /shared/run --job.nodes 2 > job.yaml",),
    "ssh": (
        "adaptive-nets launch ssh {id} --job.hosts tpu0 tpu1 > start.sh",
        "adaptive-nets launch ssh {id} --job.hosts tpu0 tpu1 --dry-run",
    ),
}
# Flags of the job of each kind; completion reads them too.
FORMS = {"slurm": slurm.Slurm, "k8s": kubernetes.Kubernetes, "ssh": ssh.Ssh}


DRY_RUN = "--dry-run"


def split_job_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits the arguments into those of the run and those of the job, without `--job.`."""
    run, job, current = [], [], None
    for argument in arguments:
        if argument.startswith("--"):
            current = job if argument.startswith("--job.") else run
            argument = argument.replace("--job.", "--", 1)
        elif current is None:
            current = run
        current.append(argument)
    return run, job


def _read[J](kind: str, form: type[J], arguments: Sequence[str]) -> tuple[J, RunRequest]:
    """Parses and checks the arguments; returns the job and the run that it starts."""
    program = f"{PROGRAM} {kind}"
    check_printable(arguments)
    run, own = split_job_arguments(arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {program} ID [flags of 'run'] [--job.FLAG VALUE ...] > FILE\n")
        print("--dry-run prints what the job would do instead of the script.\n")
        print("Flags of the job, each as --job.FLAG:")
        parse(form, ["--help"], program=program, examples=EXAMPLES[kind])
    job = parse(form, own, program=program, prefix="job.")
    name, preset_name = peek_id_and_preset(run)
    if name is None:
        raise UserError(
            f"{program} expects the id of an experiment first (adaptive-nets list shows all)"
        )
    experiment = find_experiment(name)
    preset = find_preset(experiment, preset_name)
    options = parse_flags(preset.config, run, program=program)
    if options.distributed.is_requested:
        raise UserError(
            "--distributed.coordinator and --distributed.cluster are set by the script; leave them "
            "out"
        )
    if getattr(options, "fresh", False):
        raise UserError("--fresh is True; expected False: a restart of the job resumes the run")
    return job, RunRequest(
        arguments=tuple(run),
        config=options.values,
        name=job_name(getattr(job, "name", None), name, preset_name),
        folder=default_folder(experiment, preset_name),
        out=options.out,
        first_seed=options.first_seed,
        seeds=preset.seeds if options.seeds is None else options.seeds,
    )


def show_job[J](
    kind: str, job: J, run: RunRequest, render: Callable[[J, RunRequest], str], *, dry: bool
) -> None:
    """Prints the script or manifest of a job, or what it would do.

    Args:
        kind: "slurm", "k8s" or "ssh".
        job: flags of the job.
        run: the run, or runs, that it starts.
        render: renders the script and checks every value.
        dry: whether to describe the job instead.
    """
    text = render(job, run)
    if dry:
        show_fields(describe_job(kind, job, run))  # pyright: ignore[reportArgumentType]
    else:
        print(text, end="")


def _rendered[J](
    kind: str, form: type[J], render: Callable[[J, RunRequest], str]
) -> Callable[[Sequence[str]], None]:
    def show(arguments: Sequence[str]) -> None:
        words = [argument for argument in arguments if argument != DRY_RUN]
        dry = len(words) < len(arguments)
        show_job(kind, *_read(kind, form, words), render, dry=dry)

    return show


def main(arguments: Sequence[str]) -> None:
    """Prints a script or manifest, or with --dry-run what it would do; starts nothing."""
    dispatch_subcommand(
        PROGRAM,
        arguments,
        {
            "slurm": (_rendered("slurm", FORMS["slurm"], slurm.render), "a script for sbatch"),
            "k8s": (
                _rendered("k8s", FORMS["k8s"], kubernetes.render),
                "a JobSet for kubectl, with GPUs or with TPUs of GKE",
            ),
            "ssh": (
                _rendered("ssh", FORMS["ssh"], ssh.render),
                "a script that starts a process on every host",
            ),
        },
        examples=[example for examples in EXAMPLES.values() for example in examples],
    )
