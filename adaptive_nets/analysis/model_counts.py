"""Counts of the zoo that ship with the package, so that listing it traces nothing.

`python -m adaptive_nets.analysis.model_counts` recounts every model and writes the file, in a few
minutes; with `--new` it counts the models that the file lacks and renews what the registry says of
all. Reading the file imports neither JAX nor Flax, so that models are listed without importing
them.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import re
import sys
from pathlib import Path
from typing import Any

FILE = "model_counts.json"
_REGISTERED = re.compile(r'register_model\(\s*"([^"]+)"')


@functools.cache
def _contents() -> dict[str, Any]:
    # The models package itself imports JAX, so its folder is found from the package above.
    path = importlib.resources.files("adaptive_nets") / "models" / FILE
    return json.loads(path.read_text(encoding="utf-8"))


def shipped_counts() -> dict[str, dict[str, int]]:
    """Returns name of a model -> {"parameters": ..., "macs": ...} at its canonical input.

    Models of other distributions are absent; `adaptive_nets.analysis.macs.count_cost` counts them.
    """
    return {
        name: {"parameters": model["parameters"], "macs": model["macs"]}
        for name, model in _contents()["models"].items()
    }


def shipped_models() -> dict[str, dict[str, Any]]:
    """Returns name of a model -> its counts, and input_shape, num_classes, source, description."""
    return {name: dict(model) for name, model in _contents()["models"].items()}


def is_current() -> bool:
    """Returns whether every model that the sources register by a literal name is in the file.

    A model that was added to a checkout is found so without importing the others.
    """
    folder = Path(str(importlib.resources.files("adaptive_nets") / "models"))
    found = (_REGISTERED.findall(path.read_text("utf-8")) for path in folder.rglob("*.py"))
    return {name for names in found for name in names} <= set(_contents()["models"])


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


def description(name: str) -> dict[str, Any]:
    """Returns what the registry says of a model: input_shape, num_classes, source, description."""
    from adaptive_nets.models import model_entry

    entry = model_entry(name)
    return {
        "input_shape": list(entry.input_shape),
        "num_classes": entry.num_classes,
        "source": entry.source,
        "description": entry.description,
    }


def count_all() -> dict[str, Any]:
    """Counts every model of this distribution and every reference; returns the file's contents."""
    from adaptive_nets.analysis.macs import count_cost
    from adaptive_nets.analysis.reference_counts import model_count, reference_counts

    models = {
        name: dataclasses.asdict(count_cost(name)) | description(name)
        for name in registered_models()
    }
    references = {key: model_count(value) for key, value in sorted(reference_counts().items())}
    return {"models": models, "references": references}


def count_new() -> dict[str, Any]:
    """Returns the file's contents with present descriptions and with counts that it lacks."""
    from adaptive_nets.analysis.macs import count_cost

    known = shipped_counts()
    models = {
        name: (known.get(name) or dataclasses.asdict(count_cost(name))) | description(name)
        for name in registered_models()
    }
    return {"models": models, "references": shipped_reference_counts()}


def to_text(contents: dict[str, Any]) -> str:
    """Formats the file with one line per model, so that a diff shows the models that changed."""
    sections = []
    for section, counts in contents.items():
        lines = [f'    "{name}": {json.dumps(value)}' for name, value in counts.items()]
        sections.append(f'  "{section}": {{\n' + ",\n".join(lines) + "\n  }")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main() -> None:
    """Writes the file of counts beside the models; --new keeps the counts that it has."""
    from adaptive_nets.runtime.files import write_bytes_atomically

    contents = count_new() if "--new" in sys.argv[1:] else count_all()
    path = Path(__file__).parents[1] / "models" / FILE
    write_bytes_atomically(path, to_text(contents).encode())
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
