"""JobSet manifest for kubectl."""

from __future__ import annotations

import dataclasses
import math
import os.path
from pathlib import PurePosixPath
from typing import Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import require
from experiments.launch.quoting import (
    check_form,
    fill_template,
    kubernetes_shell_words,
    yaml_string,
)
from experiments.launch.request import (
    RunRequest,
    check_devices,
    check_port,
    check_positive,
    check_words,
)

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_IMAGE = r"[A-Za-z0-9][\w.:/@-]*"

# The index of a combination, from 0; JobSet annotates the pods of each replica with it.
_INDEX_LINES = """\
                  env:
                    - name: JOB_INDEX
                      valueFrom:
                        fieldRef:
                          fieldPath: metadata.annotations['jobset.sigs.k8s.io/job-index']"""


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
    name: str | None = None
    """Name of the JobSet; made from experiment and preset if not given."""
    namespace: str | None = None
    """Namespace; that of kubectl if not given."""
    claim: str = "shared"
    """Persistent volume claim that all pods can write to."""
    mount: str = "/shared"
    """Mount point of the claim; --out is below it, and --data-dir unless the image has the data."""
    grace: int = 120
    """Seconds between the signal to save and the end of a pod."""
    restarts: int = 100
    """Largest number of restarts of all pods."""
    port: int = 12345
    """Port that process 0 listens on."""


def render(job: Kubernetes, run: RunRequest) -> str:
    """Renders the manifest.

    Raises:
        UserError: a value does not fit the job or cannot be written into the manifest.
    """
    check_positive(job, "nodes", "devices_per_node", "grace")
    require(job.restarts >= 0, "job.restarts", job.restarts, "0 or more")
    check_port(job.port)
    _check_text(job)
    check_devices(run, job.nodes * job.devices_per_node)
    words = ["adaptive-nets", "run", *run.arguments]
    words += [] if run.variants else _out(job, run)
    selector = ""
    if job.device == "tpu":
        _check_topology(job)
        indent = " " * 14
        selector = (
            f"{indent}nodeSelector:\n"
            f"{indent}  cloud.google.com/gke-tpu-accelerator: {yaml_string(job.tpu_accelerator)}\n"
            f"{indent}  cloud.google.com/gke-tpu-topology: {yaml_string(job.tpu_topology)}"
        )
        distributed = "--distributed.cluster gketpu"
    else:
        distributed = (
            f"--distributed.coordinator {_coordinator(job, run)} "
            f"--distributed.num-processes {job.nodes} "
            '--distributed.process-id "$JOB_COMPLETION_INDEX"'
        )
    namespace = f"  namespace: {yaml_string(job.namespace)}" if job.namespace else ""
    return fill_template(
        "jobset.yaml",
        {
            "NAME": yaml_string(run.name),
            "NAMESPACE_LINES": namespace,
            "RESTARTS": job.restarts,
            "PROCESSES": job.nodes,
            "GRACE": job.grace,
            "SELECTOR_LINES": selector,
            "IMAGE": yaml_string(job.image),
            "COMMAND": yaml_string(_command(job, run, words, distributed)),
            "REPLICAS": len(run.variants) or 1,
            "ENVIRONMENT_LINES": _INDEX_LINES if run.variants else "",
            "PORT": job.port,
            "RESOURCE": "google.com/tpu" if job.device == "tpu" else "nvidia.com/gpu",
            "DEVICES": job.devices_per_node,
            "MOUNT": yaml_string(job.mount),
            "CLAIM": yaml_string(job.claim),
        },
    )


def _coordinator(job: Kubernetes, run: RunRequest) -> str:
    """Returns host and port of the first pod of a run, as a shell reads them."""
    index = "$JOB_INDEX" if run.variants else "0"
    host = f"{run.name}-workers-{index}-0.{run.name}:{job.port}"
    return f'"{host}"' if run.variants else host


def _command(job: Kubernetes, run: RunRequest, words: list[str], distributed: str) -> str:
    """Returns the command of a container; that of a sweep chooses the arguments by JOB_INDEX."""
    command = kubernetes_shell_words(words)
    if not run.variants:
        return f"exec {command} {distributed}"
    folder = str(_folder(job, run))
    choices = " ".join(
        f"{i}) set -- {kubernetes_shell_words(run.variant_words(variant, folder))} ;;"
        for i, variant in enumerate(run.variants)
    )
    return f'case "$JOB_INDEX" in {choices} *) exit 2 ;; esac; exec {command} "$@" {distributed}'


def _check_text(job: Kubernetes) -> None:
    check_form("job.image", job.image, _IMAGE, "an image such as registry/name:tag")
    check_words(job, "namespace", "claim", form=_LABEL, expected="a name of Kubernetes")
    check_words(
        job,
        "tpu_accelerator",
        form=r"[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?",
        expected="a label of a node",
    )
    path = PurePosixPath(job.mount)
    if not path.is_absolute() or len(path.parts) < 2 or ":" in job.mount or ".." in path.parts:
        raise UserError(
            f"--job.mount is {job.mount!r}; expected an absolute path such as '/shared'"
        )


def _out(job: Kubernetes, run: RunRequest) -> list[str]:
    """Returns the flag --out if it is not given; pods that restart find the run on the volume.

    Raises:
        UserError: it leads outside the volume.
    """
    folder = str(_folder(job, run))
    return ["--out", folder] if run.out is None else []


def _folder(job: Kubernetes, run: RunRequest) -> PurePosixPath:
    """Returns the folder of the run, or of the runs of a sweep.

    Raises:
        UserError: it is outside the volume.
    """
    if run.out is None:
        return PurePosixPath(job.mount) / PurePosixPath(run.folder)
    out = PurePosixPath(os.path.normpath(run.out))
    if out.is_relative_to(os.path.normpath(job.mount)):
        return out
    raise UserError(
        f"--out is {str(run.out)!r}; expected a folder below --job.mount {job.mount!r}, the only "
        "place that all pods share and that outlives them"
    )


def _check_topology(job: Kubernetes) -> None:
    sides = job.tpu_topology.split("x")
    for side in sides:
        require(
            side.isascii() and side.isdigit(),
            "job.tpu-topology",
            job.tpu_topology,
            "a shape such as 2x4",
        )
    chips = job.nodes * job.devices_per_node
    require(
        math.prod(map(int, sides)) == chips,
        "job.tpu-topology",
        job.tpu_topology,
        f"the {chips} chips of all nodes",
    )
