"""Description of what a job would do, for --dry-run; it writes and starts nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.launch.kubernetes import Kubernetes
from experiments.launch.quoting import shell_words
from experiments.launch.request import RunRequest
from experiments.launch.slurm import Slurm
from experiments.launch.ssh import Ssh
from experiments.suite import config as config_lib
from experiments.suite.records import RECORD
from experiments.suite.run_inputs import RUN_FILE

Job = Slurm | Kubernetes | Ssh
_SUBMIT = {"slurm": "sbatch FILE", "k8s": "kubectl apply -f FILE", "ssh": "bash FILE"}


def folder_state(folder: Path, seeds: Sequence[int]) -> str:
    """Describes what is in the folder of a run: nothing, or which seeds are finished.

    Args:
        folder: folder of the run.
        seeds: seeds of the run.

    Returns:
        "new", "finished", "2 of 5 seeds finished", "begun" or "other files".
    """
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError:
        return "new"
    finished = sum((folder / f"seed{seed}" / RECORD).is_file() for seed in seeds)
    if finished:
        return (
            "finished" if finished == len(seeds) else f"{finished} of {len(seeds)} seeds finished"
        )
    if RUN_FILE in names:
        return "begun"
    return "other files" if names - {".lock"} else "new"


def describe_job(kind: str, job: Job, run: RunRequest) -> dict[str, Any]:
    """Describes a job: what is submitted, where, by how many processes, and where it writes.

    Args:
        kind: "slurm", "k8s" or "ssh".
        job: flags of the job, checked by its `render`.
        run: the run that it starts.
    """
    nodes, processes, devices = _sizes(job)
    array = len(run.variants) or (run.seeds if getattr(job, "seed_array", False) else 1)
    folder = _folder(job, run)
    described: dict[str, Any] = {
        "kind": kind,
        "name": run.name,
        "submit": _SUBMIT[kind],
        "jobs": array,
        "nodes_per_job": nodes,
        "processes_per_job": processes,
        "devices_per_job": devices,
    }
    data = config_lib.group(run.configs[0], "data")
    mesh = config_lib.group(run.configs[0], "mesh")
    if data is not None and mesh is not None and not run.variants:
        shards = max(devices // mesh.model, 1)
        described["batch_size"] = data.batch_size
        described["batch_per_device"] = data.batch_size // shards
    seeds = range(run.first_seed, run.first_seed + run.seeds)
    described |= {
        "data": data.name if data is not None else "none",
        "seeds": ", ".join(map(str, seeds)) if run.seeds <= 8 else f"{seeds[0]} to {seeds[-1]}",
        "command": shell_words([_program(job), "run", *run.arguments]),
        "folder": str(folder),
        "folder_here": folder_state(folder, seeds) if not run.variants else "",
        "stops_and_restarts": _restarts(job),
        "writes": "nothing; without --dry-run the file is printed on standard output",
    }
    for i, variant in enumerate(run.variants):
        words = run.variant_words(variant, str(folder))
        here = folder_state(folder / variant.folder, seeds)
        described[f"job_{i}"] = f"{shell_words(words)} ({here})"
    return described


def _sizes(job: Job) -> tuple[int, int, int]:
    """Returns nodes, processes and devices of one job."""
    if isinstance(job, Slurm):
        gpus = job.gpus_per_node
        tasks = gpus if gpus and job.process_per == "gpu" else 1
        return job.nodes, job.nodes * tasks, job.nodes * max(gpus, 1)
    if isinstance(job, Kubernetes):
        return job.nodes, job.nodes, job.nodes * job.devices_per_node
    return len(job.hosts), len(job.hosts), len(job.hosts) * job.devices_per_host


def _program(job: Job) -> str:
    return "adaptive-nets" if isinstance(job, Kubernetes) else job.program


def _folder(job: Job, run: RunRequest) -> Path:
    if run.out is not None:
        return run.out
    if isinstance(job, Kubernetes):
        return Path(job.mount) / run.folder
    return job.directory.absolute() / run.folder


def _restarts(job: Job) -> str:
    if isinstance(job, Slurm):
        return (
            f"saves {job.grace} s before the limit {job.time}; requeued up to {job.restarts} times "
            "and resumed"
        )
    if isinstance(job, Kubernetes):
        return f"saves within {job.grace} s of a signal; restarted up to {job.restarts} times"
    return "^C saves on all hosts; the same script resumes"
