"""Records of runs: one JSON file per seed, with small arrays for figures beside it."""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import shutil
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import (
    read_json_lines,
    write_bytes_atomically,
    write_json_atomically,
)
from experiments.suite import config as config_lib
from experiments.suite import provenance
from experiments.suite.experiment import Experiment, Metric, Outcome
from experiments.suite.record_schema import SCHEMA, decode, validated
from experiments.suite.registry import canonical, find_experiment, find_preset
from experiments.suite.run_inputs import RunInput

PUBLISHED = Path(__file__).parent.parent / "results"
LOCAL = Path("runs")
# Key of `kernels.record_implementations` for tables of tiles; the package itself needs JAX.
TUNED_TABLES = "tuned tables"
RECORD, ARRAYS = "record.json", "arrays.npz"

# Points per curve that a record keeps.
_HISTORY_POINTS = 120


@dataclasses.dataclass(frozen=True)
class Record:
    """One finished seed.

    Attributes:
        content: the JSON object, see `make_record`.
        path: the file it was read from.
    """

    content: Mapping[str, Any]
    path: Path

    def __getattr__(self, name: str) -> Any:
        """Top-level entries as attributes."""
        try:
            return self.content[name]
        except KeyError:
            raise AttributeError(f"record {self.path} has no entry {name!r}") from None

    @property
    def paper(self) -> str:
        """First part of the experiment's id."""
        return self.experiment.split(".", 1)[0]

    @property
    def group(self) -> tuple[str, str, str, str]:
        """What seeds that may be averaged have in common."""
        return (self.experiment, self.preset, self.config_hash, self.dataset["fingerprint"])

    def metric(self, name: str) -> Metric | None:
        """A measured number, or None."""
        entry = self.content["metrics"].get(name)
        return Metric(**entry) if entry else None

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the arrays stored beside the record; none if the file is absent or damaged."""
        path = (
            self.path.with_suffix(".npz")
            if self.path.name != RECORD
            else self.path.with_name(ARRAYS)
        )
        if not path.exists():
            return {}
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            warn(f"{path} cannot be read and is left out: {error}")
            return {}


def history(metrics_file: Path) -> dict[str, list[list[float]]]:
    """Curves of a run: {name: [[step, value], ...]}, thinned to what a figure needs."""
    curves: dict[str, list[list[float]]] = {}
    for line in read_json_lines(metrics_file):
        for name, value in line.items():
            if name not in ("step", "epoch", "steps_per_second") and value is not None:
                curves.setdefault(name, []).append([line["step"], float(f"{value:.6g}")])
    for name, points in curves.items():
        keep = max(1, math.ceil(len(points) / _HISTORY_POINTS))
        curves[name] = points[::-1][::keep][::-1]
    return curves


def make_record(
    experiment: Experiment,
    *,
    preset: str,
    seed: int,
    config: Any,
    dataset: Any,
    outcome: Outcome,
    curves: Mapping[str, Any],
    surroundings: Surroundings,
    inputs: Mapping[str, RunInput] | None = None,
) -> dict[str, Any]:
    """The JSON object of one finished seed.

    Args:
        experiment: what was run.
        preset: its size.
        seed: of this run.
        config: resolved, flags included.
        dataset: what it was trained on (`adaptive_nets.data.Dataset`).
        outcome: what was measured.
        curves: from `history`.
        surroundings: state of code and machine when the run began, and the kernels that ran.
        inputs: the run's inputs, from `run_inputs.resolve_all`.
    """
    inputs = inputs or {}
    recorded = config_lib.to_dict(config)
    for flag in inputs:
        *groups, name = flag.split(".")
        group = recorded
        for part in groups:
            group = group[part]
        # The path is of one machine; the entry under "inputs" says what was there.
        group[name] = inputs[flag].digest
    return {
        "schema": SCHEMA,
        "experiment": experiment.id,
        "preset": preset,
        "row": experiment.row,
        "seed": seed,
        "metrics": {name: dataclasses.asdict(metric) for name, metric in outcome.metrics.items()},
        "config": recorded,
        "config_hash": config_lib.identity_hash(config, inputs),
        "changed": config_lib.changed_values(config, experiment.presets[preset].config, inputs),
        "code": dict(surroundings.code),
        "packages": provenance.package_versions(),
        "devices": provenance.devices(),
        "seconds": round(outcome.seconds, 1),
        "steps": outcome.steps,
        "dataset": {
            "name": dataset.name,
            "source": dataset.source,
            "train": dataset.count("train"),
            "test": dataset.count("test"),
            "complete": dataset.complete,
            "fingerprint": dataset.fingerprint,
        },
        "kernels": {
            name: list(used) for name, used in surroundings.kernels.items() if name != TUNED_TABLES
        },
        "tuned_table": list(surroundings.kernels.get(TUNED_TABLES, ())),
        "inputs": [found.to_record() for found in inputs.values()],
        "machine": {
            "load_at_start": list(surroundings.load),
            "load_at_end": list(provenance.load()),
            "governor": provenance.governor(),
        },
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "history": dict(curves),
    }


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """State of code and machine when a run began, and what our kernels' dispatch noted since.

    Attributes:
        code: Commit and dirty flag.
        load: Load averages of the machine.
        kernels: What `kernels.record_implementations` yields; it fills as the run goes on.
    """

    code: Mapping[str, Any]
    load: Sequence[float]
    kernels: Mapping[str, Sequence[str]]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays of a record, whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # pyright: ignore[reportArgumentType]
    write_bytes_atomically(path, buffer.getvalue())


def read_record(path: Path) -> Record:
    """Reads one record; an earlier id of its experiment becomes the present one.

    Raises:
        UserError: It is not one.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UserError(f"record {path} cannot be read: {error.strerror}") from error
    content = decode(text, source=str(path))
    return Record({**content, "experiment": canonical(content["experiment"])}, path)


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"adaptive-nets: {message}", file=sys.stderr)


def collect(roots: Iterable[Path], *, warn: Callable[[str], None] = warn) -> list[Record]:
    """Returns all experiment records below folders; of two for one seed, the newer one.

    Args:
        roots: Folders; one that does not exist has none.
        warn: Told of each file that is not a record, which is left out.
    """
    newest: dict[tuple, Record] = {}
    for root in roots:
        published = root == PUBLISHED
        for path in sorted(root.glob("*/*/*.json") if published else root.rglob(RECORD)):
            try:
                record = read_record(path)
            except UserError as error:
                warn(f"{error}; it is left out")
                continue
            key = (*record.group, record.seed)
            if key not in newest or record.finished > newest[key].finished:
                newest[key] = record
    return list(newest.values())


def default_roots() -> list[Path]:
    """The records that come with the code, and those of runs in this folder."""
    return [PUBLISHED, LOCAL]


def publish(record: Record, root: Path = PUBLISHED) -> Path:
    """Copies a record and its arrays to where those that come with the code are kept.

    A run with changed flags gets a name of its own, so that it stands beside the preset.

    Raises:
        UserError: The record is of no experiment of this version, or not of the expected form.
    """
    validated(dict(record.content), source=str(record.path))
    experiment = find_experiment(record.experiment)
    find_preset(experiment, record.preset)
    paper, row = record.experiment.split(".", 1)
    size = f"{record.preset}-{record.config_hash[:8]}" if record.changed else record.preset
    target = root / paper / row / f"{size}-seed{record.seed}.json"
    write_json_atomically(target, record.content)
    arrays = record.path.with_name(ARRAYS)
    if arrays.exists():
        shutil.copyfile(arrays, target.with_suffix(".npz"))
    return target


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and standard deviation over seeds (n − 1 in the denominator; 0 for one)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
