"""Script for sbatch."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import require
from experiments.launch.quoting import check_form, fill_template, shell_words
from experiments.launch.request import (
    RunRequest,
    check_devices,
    check_positive,
    check_program,
    check_words,
)

_TIME = r"(\d+-\d{1,2}(:\d{1,2}){0,2}|\d+(:\d{1,2}){0,2}|infinite|UNLIMITED)"
_NAME = r"[\w.@+][\w.@+:,-]*"
_EXTRA = r"(--)?[a-z][a-z0-9-]*(=[\w.,:;@%+/=*&|!()\[\]^~-]+)?"


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Resources of a SLURM job."""

    nodes: int = 1
    """Number of nodes."""
    gpus_per_node: int = 8
    """GPUs per node; 0 trains on the CPU."""
    process_per: Literal["gpu", "node"] = "gpu"
    """One process per GPU, or one for all GPUs of a node."""
    cpus_per_process: int = 8
    """CPU cores per process; they decode images."""
    memory: str | None = None
    """Memory per node, such as 64G; the default of the partition if not given, 0 for all."""
    time: str = "24:00:00"
    """Time limit in the format of sbatch."""
    grace: int = 120
    """Seconds before the time limit at which the run is told to save."""
    restarts: int = 100
    """Largest number of requeues of the job."""
    name: str | None = None
    """Name of the job; made from experiment and preset if not given."""
    partition: str | None = None
    """Partition to submit to."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    extra: tuple[str, ...] = ()
    """Further options of sbatch without leading dashes, such as constraint=a100 exclusive."""
    seed_array: bool = False
    """Submit one job per seed, as a job array, each with a folder of its own below --out."""
    at_once: int = 0
    """Largest number of jobs of an array, of seeds or of a sweep, at the same time; 0 for all."""
    directory: Path = Path()
    """Working folder with the environment, the same on all nodes."""
    program: str = ".venv/bin/adaptive-nets"
    """Installed command, relative to the working folder."""


# Option of sbatch -> flag of the job that sets it.
_SET_BY = {
    "job-name": "name", "nodes": "nodes", "ntasks-per-node": "process-per",
    "gpus-per-node": "gpus-per-node", "cpus-per-task": "cpus-per-process", "time": "time",
    "requeue": "restarts", "no-requeue": "restarts", "signal": "grace", "mem": "memory",
    "partition": "partition", "account": "account", "qos": "qos", "array": "seed-array",
}  # fmt: skip


def render(job: Slurm, run: RunRequest) -> str:
    """Renders the script.

    Raises:
        UserError: a value does not fit the job or cannot be written into the script.
    """
    check_positive(job, "nodes", "cpus_per_process", "grace")
    require(job.restarts >= 0, "job.restarts", job.restarts, "0 or more")
    gpus = job.gpus_per_node
    require(gpus >= 0, "job.gpus-per-node", gpus, "0 or more")
    _check_text(job)
    tasks = gpus if gpus and job.process_per == "gpu" else 1
    check_devices(run, job.nodes * max(gpus, 1))
    environment = []
    if not gpus:
        environment.append("export JAX_PLATFORMS=cpu")
    elif tasks == 1:
        # By default JAX gives each process of a SLURM job a single GPU.
        environment.append(f"export JAX_LOCAL_DEVICE_IDS={','.join(map(str, range(gpus)))}")
    options = {
        "gpus-per-node": gpus or None,
        "mem": job.memory,
        "partition": job.partition,
        "account": job.account,
        "qos": job.qos,
    }
    lines = [f"--{name}={value}" for name, value in options.items() if value is not None]
    array = _array(job, run)
    if array is not None:
        lines.append(f"--array={array}")
    if run.variants:
        environment += _choice(run)
    lines += ["--" + extra.removeprefix("--") for extra in job.extra]
    return fill_template(
        "slurm.sh",
        {
            "NAME": run.name,
            "NODES": job.nodes,
            "TASKS": tasks,
            "CPUS": job.cpus_per_process,
            "TIME": job.time,
            "GRACE": job.grace,
            "LOG": f"{run.name}-{'%j' if array is None else '%A-%a'}.log",
            "OPTION_LINES": "\n".join(f"#SBATCH {line}" for line in lines),
            "DIRECTORY": shlex.quote(str(job.directory.absolute())),
            "ENVIRONMENT_LINES": "\n".join(environment),
            "COMMAND": _command(job, run),
            "RESTARTS": job.restarts,
        },
    )


def _check_text(job: Slurm) -> None:
    check_program(job.program)
    check_form("job.time", job.time, _TIME, "a time limit of sbatch, such as 24:00:00 or 2-12")
    check_words(job, "partition", "account", "qos", form=_NAME, expected="a name of SLURM")
    check_words(job, "memory", form=r"\d+[KMGT]?", expected="a size such as 64G, or 0 for all")
    for extra in job.extra:
        check_form(
            "job.extra", extra, _EXTRA, "an option of sbatch, such as exclusive or constraint=a100"
        )
        name = extra.removeprefix("--").split("=")[0]
        if name in _SET_BY:
            raise UserError(f"--job.extra is {extra!r}; use --job.{_SET_BY[name]} instead")


def _array(job: Slurm, run: RunRequest) -> str | None:
    """Returns the indices of the job array; None for a single job."""
    require(job.at_once >= 0, "job.at-once", job.at_once, "0 or more")
    if run.variants:
        require(
            not job.seed_array, "job.seed-array", True,
            "False: the array of a sweep has a job for each combination, which runs all its seeds",
        )  # fmt: skip
        last, first = len(run.variants) - 1, 0
    elif job.seed_array:
        first, last = run.first_seed, run.first_seed + run.seeds - 1
    else:
        return None
    return f"{first}-{last}" + (f"%{job.at_once}" if job.at_once else "")


def _choice(run: RunRequest) -> list[str]:
    """Returns the lines that set the arguments of one run of a sweep."""
    folder = str(run.out or run.folder)
    lines = ['case "$SLURM_ARRAY_TASK_ID" in']
    for i, variant in enumerate(run.variants):
        lines.append(f"  {i}) values=({shell_words(run.variant_words(variant, folder))}) ;;")
    return [*lines, '  *) echo "no combination $SLURM_ARRAY_TASK_ID" >&2; exit 2 ;;', "esac"]


def _command(job: Slurm, run: RunRequest) -> str:
    if run.variants:
        return f'{shell_words([job.program, "run", *run.arguments])} "${{values[@]}}"'
    if not job.seed_array:
        return shell_words([job.program, "run", *run.arguments])
    # A run locks its folder, so each seed has one of its own; 'table' and 'report' find them all.
    index = '"$SLURM_ARRAY_TASK_ID"'
    folder = shlex.quote(f"{run.out or run.folder}/array-")
    words = [job.program, "run", *run.without("seeds", "first-seed", "out")]
    return f"{shell_words(words)} --seeds 1 --first-seed {index} --out {folder}{index}"
