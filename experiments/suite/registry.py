"""Registry of papers and their experiments, by discovery.

A paper is a folder of `experiments.papers`, or a package that another distribution names in the
entry-point group ``adaptive_nets.papers`` (``toy = toy_package``; the name is the first part of its
ids, unless ``IDS`` of its `configs` is another prefix, for further rows of a paper in a folder of
their own). The folder has `configs` with ``EXPERIMENTS`` and ``paper_values.toml``;
`experiments/papers/README.md` lists its other files. A paper that cannot be loaded is skipped, with
a message of one line.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from adaptive_nets.runtime.errors import UserError, did_you_mean
from experiments.suite.experiment import Experiment, Preset
from experiments.suite.paper_values import Paper, read_paper

GROUP = "adaptive_nets.papers"
VALUES = "paper_values.toml"
_IN_TREE = "experiments.papers"
# A folder without the required parts is not loaded; one without an expected part is reported.
_REQUIRED = ("configs", VALUES)
_EXPECTED = (
    ("experiment", "experiments"),
    ("measures",),
    ("figures",),
    ("tables",),
    ("README.md",),
)


@dataclasses.dataclass(frozen=True)
class PaperEntry:
    """Registered paper.

    Attributes:
        name: name of its folder; the first part of the ids of its experiments, unless ``IDS``
            of `configs` is another prefix.
        package: dotted name of its package.
        folder: folder of the package.
        values: the paper's numbers.
        experiments: its experiments, in the order of `configs`.
        missing: names of expected files that the folder lacks.
    """

    name: str
    package: str
    folder: Path
    values: Paper
    experiments: tuple[Experiment, ...]
    missing: tuple[str, ...] = ()

    def load(self, part: str) -> ModuleType | None:
        """Imports a module of the paper's folder, such as "figures"; None if there is none.

        Raises:
            UserError: the module cannot be imported.
        """
        if importlib.util.find_spec(f"{self.package}.{part}") is None:
            return None
        try:
            return importlib.import_module(f"{self.package}.{part}")
        except Exception as error:
            raise UserError(
                f"paper {self.name!r}: {part} cannot be imported: {_one_line(error)}"
            ) from error


@functools.cache
def _found() -> tuple[dict[str, PaperEntry], dict[str, str]]:
    """Returns the loaded papers by name, and the error messages of the others."""
    papers: dict[str, PaperEntry] = {}
    broken: dict[str, str] = {}
    owners: dict[str, str] = {}
    for name, package in _candidates():
        try:
            if name in papers:
                raise UserError(f"the name is taken by {papers[name].package}")
            entry = _load(name, package)
            for experiment in entry.experiments:
                for taken in (experiment.id, *experiment.aliases):
                    if taken in owners:
                        raise UserError(f"experiment id {taken!r} is taken by {owners[taken]}")
        except UserError as error:
            broken[name if name not in papers else package] = (
                f"paper {name!r} ({package}) is skipped: {error}"
            )
            continue
        papers[name] = entry
        for experiment in entry.experiments:
            owners.update(dict.fromkeys((experiment.id, *experiment.aliases), package))
    order = sorted(papers.values(), key=lambda entry: (entry.values.year, entry.name))
    return {entry.name: entry for entry in order}, broken


def _candidates() -> Iterator[tuple[str, str]]:
    """Yields name and package of every paper: first of this distribution, then of others."""
    for root in importlib.import_module(_IN_TREE).__path__:
        for folder in sorted(Path(root).iterdir()):
            if folder.is_dir() and folder.name.isidentifier() and not folder.name.startswith("_"):
                yield folder.name, f"{_IN_TREE}.{folder.name}"
    for point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: p.name):
        yield point.name, point.module


def _load(name: str, package: str) -> PaperEntry:
    """Loads values and experiments of a paper; figures and tables are imported when used.

    Raises:
        UserError: a required part is missing or broken; the message names it.
    """
    try:
        spec = importlib.util.find_spec(package)
    except Exception as error:
        raise UserError(f"{package} cannot be imported: {_one_line(error)}") from error
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{package} is not a package")
    folder = Path(next(iter(spec.submodule_search_locations)))

    def exists(part: str) -> bool:
        return any((folder / name).exists() for name in (part, f"{part}.py"))

    for part in _REQUIRED:
        if not exists(part):
            raise UserError(f"{part if '.' in part else part + '.py'} is missing in {folder}")
    values = read_paper(name, folder / VALUES)
    try:
        configs: Any = importlib.import_module(f"{package}.configs")
    except Exception as error:
        raise UserError(f"configs cannot be imported: {_one_line(error)}") from error
    experiments = getattr(configs, "EXPERIMENTS", None)
    if not isinstance(experiments, (tuple, list)) or not all(
        isinstance(experiment, Experiment) for experiment in experiments
    ):
        raise UserError("configs has no EXPERIMENTS; expected a tuple of Experiment")
    prefix = getattr(configs, "IDS", name)
    for experiment in experiments:
        if not experiment.id.startswith(f"{prefix}."):
            raise UserError(f"experiment id {experiment.id!r} does not begin with {prefix + '.'!r}")
        if experiment.row not in values.rows:
            raise UserError(f"{VALUES} has no row {experiment.row!r}, which {experiment.id} names")
    missing = tuple(
        " or ".join(part if "." in part else f"{part}.py" for part in parts)
        for parts in _EXPECTED
        if not any(exists(part) for part in parts)
    )
    if prefix != name:
        experiments = [dataclasses.replace(e, folder=name) for e in experiments]
    return PaperEntry(name, package, folder, values, tuple(experiments), missing)


def _one_line(error: Exception) -> str:
    place = ""
    if isinstance(error, SyntaxError):
        place = f" ({Path(error.filename or '?').name}, line {error.lineno})"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}{place}"


def papers() -> Mapping[str, PaperEntry]:
    """Returns every paper by name, oldest first."""
    return _found()[0]


def experiments() -> dict[str, Experiment]:
    """Returns every experiment by id, paper by paper."""
    return {e.id: e for entry in papers().values() for e in entry.experiments}


def problems() -> list[str]:
    """Returns a line for each paper that is skipped or lacks a file."""
    incomplete = (
        f"paper {entry.name!r} lacks {', '.join(entry.missing)} in {entry.folder}"
        for entry in papers().values()
        if entry.missing
    )
    return [*_found()[1].values(), *incomplete]


def refresh() -> None:
    """Clears the cache of papers, so that the next look-up searches again."""
    _found.cache_clear()
    _aliases.cache_clear()


@functools.cache
def _aliases() -> dict[str, str]:
    return {alias: e.id for e in experiments().values() for alias in e.aliases}


def canonical(name: str) -> str:
    """Returns the current id for a current or earlier id of an experiment."""
    return _aliases().get(name, name)


def load_paper(name: str) -> Paper:
    """Returns the numbers of a paper.

    Raises:
        UserError: the paper is unknown or cannot be loaded.
    """
    if name not in papers():
        raise UserError(
            _found()[1].get(name) or f"paper {name!r} is unknown; {did_you_mean(name, papers())}"
        )
    return papers()[name].values


def find_experiment(name: str) -> Experiment:
    """Returns the experiment with this current or earlier id.

    Raises:
        UserError: the id is unknown; the message suggests the nearest one.
    """
    found = experiments().get(canonical(name))
    if found is not None:
        return found
    broken = _found()[1].get(name.split(".", 1)[0])
    if broken:
        raise UserError(broken)
    known = _run_in(name) or f"{did_you_mean(name, experiments())} (adaptive-nets list shows all)"
    raise UserError(f"experiment {name!r} is unknown; {known}")


def _run_in(name: str) -> str:
    """Returns a hint if a name is the folder of a run instead of an id; "" otherwise."""
    if not (Path(name) / "run.json").is_file():
        return ""
    return f"it is the folder of a run; expected an id, or {name} after --run or --results"


def select(pattern: str) -> list[Experiment]:
    """Returns the experiments whose current or earlier id matches a pattern.

    Args:
        pattern: shell pattern or prefix of an id, or the name of a paper.

    Raises:
        UserError: no experiment matches.
    """

    def matches(name: str) -> bool:
        return fnmatch.fnmatch(name, pattern) or name.startswith(pattern)

    chosen = [
        e
        for e in experiments().values()
        if e.paper == pattern or any(map(matches, (e.id, *e.aliases)))
    ]
    if not chosen:
        known = [*experiments(), *papers()]
        hint = _run_in(pattern) or did_you_mean(pattern, known)
        raise UserError(
            _found()[1].get(pattern.split(".", 1)[0])
            or f"no experiment matches {pattern!r}; {hint}"
        )
    return chosen


def find_preset(experiment: Experiment, name: str) -> Preset:
    """Returns the preset of this name.

    Raises:
        UserError: the experiment has no such preset.
    """
    if name not in experiment.presets:
        raise UserError(f"--preset is {name!r}; expected one of {', '.join(experiment.presets)}")
    return experiment.presets[name]
