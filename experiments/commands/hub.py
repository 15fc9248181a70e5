"""Upload of exported networks to the Hugging Face hub, with an optional package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptive_nets.runtime.errors import UserError
from experiments.launch.quoting import check_form

_REPOSITORY = r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*"


def check_hub(repository: str) -> None:
    """Checks the name of a repository, and that the package is there.

    Raises:
        UserError: the name has another form, or huggingface_hub is not installed.
    """
    check_form("hub", repository, _REPOSITORY, "a repository such as USER/NAME")
    try:
        import huggingface_hub  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--hub needs the package huggingface_hub, which is not installed; pip install "
            "'adaptive-nets[hub]', or leave the flag out"
        ) from error


def upload(repository: str, files: Sequence[Path], described: Mapping[str, Any]) -> str:
    """Uploads files and a card that says what they are; makes the repository if there is none.

    Args:
        repository: name of the repository, [USER/]NAME.
        files: files to upload, under their own names.
        described: description of the export, for the card.

    Returns:
        Full name of the repository.

    Raises:
        UserError: the hub refuses it, or cannot be reached.
    """
    check_hub(repository)
    from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]

    api = HfApi()
    try:
        made = api.create_repo(repository, repo_type="model", exist_ok=True)
        name = getattr(made, "repo_id", None) or repository
        contents = [(str(file), file.name) for file in files]
        for content, path in [*contents, (card(described, files[0].name).encode(), "README.md")]:
            api.upload_file(
                path_or_fileobj=content, path_in_repo=path, repo_id=name, repo_type="model"
            )
    except Exception as error:  # The package raises many types.
        text = " ".join(str(error).split())[:200]
        raise UserError(
            f"--hub {repository}: the hub refuses the files ({text}); they are written here; "
            "'hf auth login' stores a token"
        ) from error
    return name


def card(described: Mapping[str, Any], file: str) -> str:
    """Returns the card of a repository: what the file is and how to load it."""
    loads = {
        "safetensors": f'model, variables, config = adaptive_nets.load_run("{file}")',
        "pytorch": f'network.load_state_dict(torch.load("{file}", weights_only=True))',
        "stablehlo": f'program = jax.export.deserialize(pathlib.Path("{file}").read_bytes())',
    }
    return (
        "---\nlibrary_name: adaptive-nets\ntags:\n- image-classification\n---\n\n"
        f"# {described['model']}\n\n"
        f"Trained on {described.get('data') or 'unknown data'}, {described['num_classes']} "
        f"classes. `{file}.json` has the shape and normalisation of the inputs.\n\n"
        f"```python\n{loads[described['to']]}\n```\n\n"
        f"Normalisation: `{json.dumps(described['normalisation'])[:400]}`\n"
    )
