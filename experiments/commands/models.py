"""adaptive-nets models: the zoo by name."""

from __future__ import annotations

import dataclasses
import fnmatch
import importlib.metadata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tyro

from adaptive_nets.analysis.model_counts import (
    is_current,
    shipped_models,
    shipped_reference_counts,
)
from adaptive_nets.runtime.errors import UserError, did_you_mean
from adaptive_nets.runtime.progress import ConsoleProgress
from experiments.commands.layout import Column, grouped, plain
from experiments.commands.output import console, note, show_listing
from experiments.commands.parsing import parse

EXAMPLES = (
    "adaptive-nets models resnet",
    "adaptive-nets models '*cifar10' | sort -n -k2",
    "adaptive-nets models --reference",
)
PLUGINS = "adaptive_nets.models"


@dataclasses.dataclass(frozen=True)
class Models:
    """Lists networks: name, parameters, multiply-accumulates per image, input size, source."""

    pattern: tyro.conf.Positional[str] = "*"
    """Beginning of a name, or shell pattern such as '*cifar10'."""
    reference: bool = False
    """Compare parameters with the counts that others state; the pattern is of their keys."""
    json: bool = False
    """Print JSON instead of a table."""


def size_text(shape: Sequence[int]) -> str:
    """Formats a shape: 28x28x1."""
    return "x".join(map(str, shape))


COLUMNS = (
    Column("name"),
    Column("parameters", rank=1, align="right", text=grouped),
    Column("macs", "MACs", rank=2, align="right", text=grouped),
    Column("input_shape", "input", rank=3, text=size_text, pipe=size_text),
    Column("num_classes", "classes", rank=4, align="right"),
    Column("source", rank=6, least=12),
    Column("description", rank=5, least=16),
)


def _overrides(value: dict[str, Any]) -> str:
    return " ".join(f"{key}={plain(item)}" for key, item in value.items())


REFERENCE_COLUMNS = (
    Column("reference"),
    Column("equal", rank=1, text=lambda equal: "yes" if equal else "NO", style={"NO": "red"}),
    Column("ours", rank=2, align="right", text=grouped),
    Column("stated", rank=3, align="right", text=grouped),
    Column("model", rank=4),
    Column("counted", rank=6, least=8),
    Column("overrides", rank=7, least=8, text=_overrides, pipe=_overrides),
    Column("source", rank=5, least=8),
)


def matching(pattern: str, names: Iterable[str], what: str) -> list[str]:
    """Returns the names that begin with a text or match a shell pattern.

    Raises:
        UserError: no name matches.
    """
    names = list(names)
    found = [n for n in names if n.startswith(pattern) or fnmatch.fnmatchcase(n, pattern)]
    if not found:
        nearest = did_you_mean(pattern, names) if len(pattern.strip("*?")) > 2 else ""
        if not nearest.startswith("did"):
            nearest = "adaptive-nets models lists all"
        raise UserError(f"no {what} matches {pattern!r}; {nearest}")
    return found


def known_models() -> dict[str, dict[str, Any] | None]:
    """Returns shipped counts and description of every model by name; None if not shipped.

    Networks are imported only if another distribution adds some, or if the shipped file is stale.
    """
    known: dict[str, dict[str, Any] | None] = dict(shipped_models())
    if importlib.metadata.entry_points(group=PLUGINS) or not is_current():
        from adaptive_nets.models import list_models
        from adaptive_nets.models.registry import broken_plugins

        known |= {name: None for name in list_models() if name not in known}
        for name, error in broken_plugins().items():
            note(f"adaptive-nets: plugin {name!r} could not be imported: {error}")
    return dict(sorted(known.items()))


def _with_progress(names: Sequence[str], action: Callable[[str], None]) -> None:
    """Calls the action for every name, with a bar on standard error."""
    with ConsoleProgress(console(stderr=True)) as progress:
        if names:
            progress.start("counting", done=0, total=len(names), unit="networks")
        for done, name in enumerate(names, 1):
            action(name)
            progress.update(done)


def _list(pattern: str, *, as_json: bool) -> None:
    known = known_models()
    names = matching(pattern, known, "model")

    def count(name: str) -> None:
        from adaptive_nets.analysis.macs import count_cost
        from adaptive_nets.analysis.model_counts import description

        known[name] = dataclasses.asdict(count_cost(name)) | description(name)

    _with_progress([name for name in names if known[name] is None], count)
    show_listing(
        COLUMNS,
        [{"name": name} | (known[name] or {}) for name in names],
        as_json=as_json,
        next_commands=(f"adaptive-nets bench networks {names[0]}",),
    )


def _compare(pattern: str, *, as_json: bool) -> None:
    from adaptive_nets.analysis.reference_counts import model_count, reference_counts

    references = reference_counts()
    names = matching(pattern, references, "reference")
    ours = shipped_reference_counts()

    def count(name: str) -> None:
        ours[name] = model_count(references[name])

    _with_progress([name for name in names if name not in ours], count)
    rows = []
    for name in names:
        reference = references[name]
        rows.append(
            {
                "reference": name,
                "model": reference.model,
                "overrides": reference.overrides,
                "counted": list(reference.counted),
                "without": list(reference.without),
                "ours": ours[name],
                "stated": reference.parameters,
                "equal": ours[name] == reference.parameters,
                "source": reference.source,
            }
        )
    equal = sum(row["equal"] for row in rows)
    show_listing(
        REFERENCE_COLUMNS,
        rows,
        as_json=as_json,
        notes=(f"{equal} of {len(rows)} counts are equal",),
        next_commands=("adaptive-nets models",),
    )


def main(arguments: Sequence[str]) -> None:
    """Prints the networks that match."""
    options = parse(Models, arguments, program="adaptive-nets models", examples=EXAMPLES)
    (_compare if options.reference else _list)(options.pattern, as_json=options.json)
