"""Counts of the zoo that ship with the package, so that listing it traces nothing.

`python -m adaptive_nets.analysis.model_counts` recounts every model and writes the file, in a few
minutes. Reading the file imports neither JAX nor Flax.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
from pathlib import Path
from typing import Any

FILE = "model_counts.json"


@functools.cache
def _contents() -> dict[str, Any]:
    # The models package itself imports JAX, so its folder is found from the package above.
    path = importlib.resources.files("adaptive_nets") / "models" / FILE
    return json.loads(path.read_text(encoding="utf-8"))


def shipped_counts() -> dict[str, dict[str, int]]:
    """Returns name of a model -> {"parameters": ..., "macs": ...} at its canonical input.

    Models of other distributions are absent; `adaptive_nets.analysis.macs.count_cost` counts them.
    """
    return {name: dict(counts) for name, counts in _contents()["models"].items()}


def shipped_reference_counts() -> dict[str, int]:
    """Returns key of `reference_counts` -> parameters that our network has for it."""
    return dict(_contents()["references"])


def registered_models() -> list[str]:
    """Returns the names of the models that this distribution registers."""
    from adaptive_nets.models import list_models, model_entry

    return [
        name
        for name in list_models()
        if model_entry(name).build.__module__.startswith("adaptive_nets.")
    ]


def count_all() -> dict[str, Any]:
    """Counts every model of this distribution and every reference; returns the file's contents."""
    from adaptive_nets.analysis.macs import count_cost
    from adaptive_nets.analysis.reference_counts import model_count, reference_counts

    models = {name: dataclasses.asdict(count_cost(name)) for name in registered_models()}
    references = {key: model_count(value) for key, value in sorted(reference_counts().items())}
    return {"models": models, "references": references}


def to_text(contents: dict[str, Any]) -> str:
    """Formats the file with one line per model, so that a diff shows the models that changed."""
    sections = []
    for section, counts in contents.items():
        lines = [f'    "{name}": {json.dumps(value)}' for name, value in counts.items()]
        sections.append(f'  "{section}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Writes the file of counts beside the models."""
    from adaptive_nets.runtime.files import write_bytes_atomically

    path = Path(__file__).parents[1] / "models" / FILE
    write_bytes_atomically(path, to_text(count_all()).encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
