"""adaptive-nets launch: scripts for clusters, from the same flags as a run."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import require
from experiments.commands.parsing import parse
from experiments.commands.run import parse_flags, peek_id_and_preset
from experiments.commands.subcommands import dispatch_subcommand
from experiments.suite import config as config_lib
from experiments.suite.registry import find_experiment, find_preset

PROGRAM = "adaptive-nets launch"
TEMPLATES = Path(__file__).parent.parent / "launch"
_PLACE = re.compile(r"@([A-Z_]+)@")
EXAMPLES = {
    "slurm": ("adaptive-nets launch slurm {id} --preset paper --job.nodes 2 > job.sh",),
    "k8s": ("adaptive-nets launch k8s {id} --out /shared/run --job.nodes 2 > job.yaml",),
    "ssh": ("adaptive-nets launch ssh {id} --job.hosts tpu0 tpu1 > start.sh",),
}


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
    time: str = "24:00:00"
    """Time limit in the format of sbatch."""
    grace: int = 120
    """Seconds before the time limit at which the run is told to save."""
    restarts: int = 100
    """Largest number of requeues of the job."""
    partition: str | None = None
    """Partition to submit to."""
    directory: Path = Path()
    """Working folder with the environment, the same on all nodes."""
    program: str = ".venv/bin/adaptive-nets"
    """Installed command, relative to the working folder."""


@dataclasses.dataclass(frozen=True)
class Kubernetes:
    """Pods of a JobSet."""

    image: str = "adaptive-nets:latest"
    """Container image with this package and its extra cuda or tpu."""
    nodes: int = 1
    """Number of pods, each on a separate node with one process."""
    device: Literal["gpu", "tpu"] = "gpu"
    """Kind of device."""
    devices_per_node: int = 8
    """Devices per pod."""
    tpu_accelerator: str = "tpu-v5-lite-podslice"
    """Kind of TPU node on GKE."""
    tpu_topology: str = "2x4"
    """Topology of the whole TPU slice on GKE."""
    claim: str = "shared"
    """Persistent volume claim that all pods can write to."""
    mount: str = "/shared"
    """Mount point of the claim; --out and --data-dir belong below it."""
    grace: int = 120
    """Seconds between the signal to save and the end of a pod."""
    restarts: int = 100
    """Largest number of restarts of all pods."""
    port: int = 12345
    """Port that process 0 listens on."""


@dataclasses.dataclass(frozen=True)
class Ssh:
    """Hosts of a run without a scheduler, such as TPU VMs."""

    hosts: tuple[str, ...] = ("localhost",)
    """Hosts, [user@]host; the first one is process 0."""
    devices_per_host: int = 1
    """Devices per host, to check batch sizes and mesh."""
    directory: Path = Path()
    """Working folder with the environment, the same on all hosts."""
    program: str = ".venv/bin/adaptive-nets"
    """Installed command, relative to the working folder."""
    port: int = 12345
    """Port that process 0 listens on."""


FORMS = {"slurm": Slurm, "k8s": Kubernetes, "ssh": Ssh}


def _split_job_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
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


def _fill(name: str, values: Mapping[str, object]) -> str:
    """Fills the placeholders of a template; drops lines that only hold an empty placeholder."""
    lines = []
    for line in (TEMPLATES / name).read_text(encoding="utf-8").splitlines():
        filled = _PLACE.sub(lambda match: str(values[match[1]]), line)
        if filled.strip() or not line.strip():
            lines.append(filled)
    return "\n".join(lines) + "\n"


def _read[J](kind: str, form: type[J], arguments: Sequence[str]) -> tuple[J, Any, list[str], str]:
    """Parses and checks the arguments; returns job, configuration, run arguments and job name."""
    program = f"{PROGRAM} {kind}"
    run, own = _split_job_arguments(arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {program} ID [flags of 'run'] [--job.FLAG VALUE ...] > FILE\n")
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
    label = re.sub(r"[^a-z0-9]+", "-", f"{name}-{preset_name}".lower()).strip("-")[:50].strip("-")
    return job, options.values, run, label


def check_devices(config: Any, devices: int) -> None:
    """Raises a `UserError` unless mesh and batch sizes fit a number of devices."""
    mesh, data = config_lib.group(config, "mesh"), config_lib.group(config, "data")
    if mesh is None:
        return
    require(
        devices % mesh.model == 0, "mesh.model", mesh.model, f"a divisor of the {devices} devices"
    )
    rest = devices // mesh.model
    require(
        mesh.data in (0, rest), "mesh.data", mesh.data, f"{rest}, since there are {devices} devices"
    )
    for field in ("batch_size", "eval_batch_size"):
        size = getattr(data, field)
        flag = "data." + field.replace("_", "-")
        require(size % rest == 0, flag, size, f"a multiple of {rest}, the devices that share it")


def _positive(job: object, *names: str) -> None:
    for name in names:
        value = getattr(job, name)
        require(value > 0, "job." + name.replace("_", "-"), value, "a positive number")


def slurm(arguments: Sequence[str]) -> str:
    """Renders a script for sbatch."""
    job, config, run, name = _read("slurm", Slurm, arguments)
    _positive(job, "nodes", "cpus_per_process", "grace")
    gpus = job.gpus_per_node
    require(gpus >= 0, "job.gpus-per-node", gpus, "0 or more")
    tasks = gpus if gpus and job.process_per == "gpu" else 1
    check_devices(config, job.nodes * max(gpus, 1))
    environment = []
    if not gpus:
        environment.append("export JAX_PLATFORMS=cpu")
    elif tasks == 1:
        # By default JAX gives each process of a SLURM job a single GPU.
        environment.append(f"export JAX_LOCAL_DEVICE_IDS={','.join(map(str, range(gpus)))}")
    return _fill(
        "slurm.sh",
        {
            "NAME": name,
            "NODES": job.nodes,
            "TASKS": tasks,
            "GPU_LINES": f"#SBATCH --gpus-per-node={gpus}" if gpus else "",
            "CPUS": job.cpus_per_process,
            "TIME": job.time,
            "GRACE": job.grace,
            "LOG": f"{name}-%j.log",
            "PARTITION_LINES": f"#SBATCH --partition={job.partition}" if job.partition else "",
            "DIRECTORY": shlex.quote(str(job.directory.absolute())),
            "ENVIRONMENT_LINES": "\n".join(environment),
            "COMMAND": shlex.join([job.program, "run", *run]),
            "RESTARTS": job.restarts,
        },
    )


def k8s(arguments: Sequence[str]) -> str:
    """Renders a JobSet for kubectl."""
    job, config, run, name = _read("k8s", Kubernetes, arguments)
    _positive(job, "nodes", "devices_per_node", "grace", "port")
    check_devices(config, job.nodes * job.devices_per_node)
    tpu = job.device == "tpu"
    indent = " " * 14
    selector = ""
    if tpu:
        chips = 1
        for side in job.tpu_topology.split("x"):
            require(side.isdigit(), "job.tpu-topology", job.tpu_topology, "a shape such as 2x4")
            chips *= int(side)
        require(
            chips == job.nodes * job.devices_per_node,
            "job.tpu-topology",
            job.tpu_topology,
            f"the {job.nodes * job.devices_per_node} chips of all nodes",
        )
        selector = (
            f"{indent}nodeSelector:\n"
            f"{indent}  cloud.google.com/gke-tpu-accelerator: {job.tpu_accelerator}\n"
            f"{indent}  cloud.google.com/gke-tpu-topology: {job.tpu_topology}"
        )
        distributed = "--distributed.cluster gketpu"
    else:
        distributed = (
            f"--distributed.coordinator {name}-workers-0-0.{name}:{job.port} "
            f"--distributed.num-processes {job.nodes} "
            '--distributed.process-id "$JOB_COMPLETION_INDEX"'
        )
    return _fill(
        "jobset.yaml",
        {
            "NAME": name,
            "RESTARTS": job.restarts,
            "PROCESSES": job.nodes,
            "GRACE": job.grace,
            "SELECTOR_LINES": selector,
            "IMAGE": job.image,
            "COMMAND": shlex.join(["adaptive-nets", "run", *run]),
            "DISTRIBUTED": distributed,
            "PORT": job.port,
            "RESOURCE": "google.com/tpu" if tpu else "nvidia.com/gpu",
            "DEVICES": job.devices_per_node,
            "MOUNT": job.mount,
            "CLAIM": job.claim,
        },
    )


def ssh(arguments: Sequence[str]) -> str:
    """Renders a script that starts a process on every host and stops all of them together."""
    job, config, run, name = _read("ssh", Ssh, arguments)
    _positive(job, "devices_per_host", "port")
    check_devices(config, len(job.hosts) * job.devices_per_host)
    # The template puts the command in double quotes.
    command = re.sub(r'(["$`\\])', r"\\\1", shlex.join([job.program, "run", *run]))
    return _fill(
        "ssh.sh",
        {
            "HOSTS": " ".join(shlex.quote(host) for host in job.hosts),
            "DIRECTORY": shlex.quote(str(job.directory.absolute())),
            "NAME": name,
            "COMMAND": command,
            "PORT": job.port,
        },
    )


def main(arguments: Sequence[str]) -> None:
    """Prints a script or manifest."""

    def printed(render: Callable[[Sequence[str]], str]) -> Callable[[Sequence[str]], None]:
        return lambda rest: print(render(rest), end="")

    dispatch_subcommand(
        PROGRAM,
        arguments,
        {
            "slurm": (printed(slurm), "a script for sbatch"),
            "k8s": (printed(k8s), "a JobSet for kubectl, with GPUs or with TPUs of GKE"),
            "ssh": (printed(ssh), "a script that starts a process on every host"),
        },
        examples=[example for examples in EXAMPLES.values() for example in examples],
    )
