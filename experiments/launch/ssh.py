"""Script that starts a process on every host and stops all of them together."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path

from adaptive_nets.training.config import require
from experiments.launch.quoting import check_form, fill_template, shell_words
from experiments.launch.request import (
    RunRequest,
    check_devices,
    check_port,
    check_positive,
    check_program,
)

# A host never begins with a hyphen, which ssh would take for an option.
_HOST = r"([A-Za-z_][\w.-]*@)?([A-Za-z0-9]([\w.-]*[A-Za-z0-9])?|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]+)"


@dataclasses.dataclass(frozen=True)
class Ssh:
    """Hosts of a run without a scheduler, such as TPU VMs."""

    hosts: tuple[str, ...] = ("localhost",)
    """Hosts, [user@]host; the first one is process 0."""
    devices_per_host: int = 1
    """Devices per host, to check batch sizes and mesh."""
    name: str | None = None
    """Name of the job; made from experiment and preset if not given."""
    directory: Path = Path()
    """Working folder with the environment, the same on all hosts."""
    program: str = ".venv/bin/adaptive-nets"
    """Installed command, relative to the working folder."""
    port: int = 12345
    """Port that process 0 listens on."""


def render(job: Ssh, run: RunRequest) -> str:
    """Renders the script.

    Raises:
        UserError: a value does not fit the job or cannot be written into the script.
    """
    check_positive(job, "devices_per_host")
    check_port(job.port)
    check_program(job.program)
    require(len(job.hosts) > 0, "job.hosts", job.hosts, "at least one host")
    for host in job.hosts:
        check_form("job.hosts", host, _HOST, "[user@]host, a name or an address")
    check_devices(run, len(job.hosts) * job.devices_per_host)
    first = job.hosts[0].split("@")[-1]
    coordinator = f"[{first}]:{job.port}" if ":" in first else f"{first}:{job.port}"
    # Quoted twice: for the shell that reads the script, and for the one on the host.
    return fill_template(
        "ssh.sh",
        {
            "HOSTS": shell_words(job.hosts),
            "DIRECTORY": shlex.quote(shlex.quote(str(job.directory.absolute()))),
            "NAME": run.name,
            "COMMAND": shlex.quote(shell_words([job.program, "run", *run.arguments])),
            "COORDINATOR": shlex.quote(shlex.quote(coordinator)),
        },
    )
