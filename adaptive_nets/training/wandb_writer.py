"""Writer of metrics to Weights & Biases, an optional package."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object

ID_FILE = "wandb.json"
"""File in the folder of a seed with the id under which Weights & Biases knows it."""


def check_wandb() -> None:
    """Raises a `UserError` that says what to install if the package is absent."""
    try:
        import wandb  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--wandb needs the package wandb, which is not installed; pip install "
            "'adaptive-nets[wandb]', or leave the flag out"
        ) from error


class WandbWriter:
    """Writes the metrics of one seed as one run of a project.

    A resumed seed continues its run there: its id is kept in the folder of the seed. Steps that a
    killed process logged after its last checkpoint stay as they were, since the service takes no
    step twice. Without a network, ``WANDB_MODE=offline`` keeps everything in the folder.

    Args:
        directory: folder of the seed, where the package keeps its files.
        resume_step: step that the seed resumes from; 0 for a new one.
        project: name of the project, ``PROJECT`` or ``ENTITY/PROJECT``.
        name: name of the run for people.
        config: configuration of the run, JSON values.

    Raises:
        UserError: the package is not installed, or its service refuses the run.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        resume_step: int,
        project: str,
        name: str,
        config: Mapping[str, Any],
    ):
        check_wandb()
        import wandb  # pyright: ignore[reportMissingImports]

        directory = Path(directory)
        entity, _, project = project.rpartition("/")
        try:
            self._run = wandb.init(
                project=project,
                entity=entity or None,
                name=name,
                id=_run_id(directory / ID_FILE, resume_step=resume_step),
                resume="allow",
                dir=str(directory),
                config=dict(config),
            )
        except Exception as error:  # The package raises many types.
            text = " ".join(str(error).split())[:200]
            raise UserError(
                f"--wandb {project}: Weights & Biases refuses the run ({text}); 'wandb login', or "
                "WANDB_MODE=offline"
            ) from error

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Logs the scalars of one step; infinities and NaN are left out."""
        self._run.log({k: v for k, v in values.items() if math.isfinite(v)}, step=step)

    def close(self) -> None:
        """Finishes the run there."""
        self._run.finish()


def _run_id(path: Path, *, resume_step: int) -> str:
    """Returns the id of the seed's run; a new one for a seed that starts."""
    if resume_step and path.exists():
        return read_json_object(path, remedy="delete it", entries={"id": str})["id"]
    made = secrets.token_hex(6)
    write_json_atomically(path, {"id": made})
    return made
