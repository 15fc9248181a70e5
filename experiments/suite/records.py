"""Records of runs: one JSON file per seed, with small arrays for figures in a second file."""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import (
    naming,
    write_bytes_atomically,
    write_json_atomically,
)
from adaptive_nets.runtime.json_files import read_json_lines
from adaptive_nets.runtime.reading import TEXT_LIMIT, check_unpacked_size, read_file
from experiments.suite import config as config_lib
from experiments.suite import provenance
from experiments.suite.experiment import Experiment, Metric, Outcome
from experiments.suite.record_schema import SCHEMA, decode, validated
from experiments.suite.registry import canonical, experiments, find_experiment, find_preset
from experiments.suite.run_inputs import RunInput, replace_path

PUBLISHED = Path(__file__).parent.parent / "results"
LOCAL = Path("runs")
# Key of tuned tables in `kernels.record_implementations`; importing it from there imports JAX.
TUNED_TABLES = "tuned tables"
RECORD, ARRAYS = "record.json", "arrays.npz"

# Largest number of points of a curve in a record.
_HISTORY_POINTS = 120


@dataclasses.dataclass(frozen=True)
class Record:
    """Record of one finished seed.

    Attributes:
        content: JSON object, see `make_record`.
        path: file of the record.
    """

    content: Mapping[str, Any]
    path: Path

    def __getattr__(self, name: str) -> Any:
        """Returns a top-level entry."""
        try:
            return self.content[name]
        except KeyError:
            raise AttributeError(f"record {self.path} has no entry {name!r}") from None

    @property
    def paper(self) -> str:
        """Name of the paper, the first part of the experiment's id."""
        return self.experiment.split(".", 1)[0]

    @property
    def group(self) -> tuple[str, str, str, str]:
        """Key of the records that differ in the seed only."""
        return (self.experiment, self.preset, self.config_hash, self.dataset["fingerprint"])

    def metric(self, name: str) -> Metric | None:
        """Returns a measured number, or None."""
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
            content = io.BytesIO(read_file(path))
            with zipfile.ZipFile(content) as archive:
                check_unpacked_size(archive)
            content.seek(0)
            with np.load(content, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (
            OSError,
            ValueError,
            EOFError,
            MemoryError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            warn(f"{path} cannot be read and is skipped: {error}")
            return {}


def history(metrics_file: Path) -> dict[str, list[list[float]]]:
    """Reads the curves of a run, {name: [[step, value], ...]}, thinned for figures."""
    curves: dict[str, list[list[float]]] = {}
    for line in read_json_lines(metrics_file, entries={"step": int}):
        for name, value in line.items():
            if name not in ("step", "epoch", "steps_per_second") and isinstance(
                value, (int, float)
            ):
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
    """Builds the JSON object of one finished seed.

    Args:
        experiment: experiment of the run.
        preset: name of the preset.
        seed: seed of the run.
        config: resolved configuration, flags included.
        dataset: data set of the run (`adaptive_nets.data.Dataset`).
        outcome: results of the run.
        curves: curves of the run, from `history`.
        surroundings: state of code and machine at the start, and the kernels that ran.
        inputs: run inputs, from `run_inputs.resolve_all`.
    """
    inputs = inputs or {}
    recorded = config_lib.to_dict(config)
    for flag in inputs:
        *groups, name = flag.split(".")
        group = recorded
        for part in groups:
            group = group[part]
        # A path is valid on one machine only; the entry "inputs" describes its content.
        replace_path(group, name, inputs[flag].digest)
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
    """State of code and machine at the start of a run, and the kernels that ran since.

    Attributes:
        code: commit and dirty flag.
        load: load averages of the machine.
        kernels: mapping that `kernels.record_implementations` yields and fills during the run.
    """

    code: Mapping[str, Any]
    load: Sequence[float]
    kernels: Mapping[str, Sequence[str]]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes the arrays of a record atomically."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # pyright: ignore[reportArgumentType]
    write_bytes_atomically(path, buffer.getvalue())


def read_record(path: Path) -> Record:
    """Reads one record; replaces an earlier id of its experiment by the current one.

    Raises:
        UserError: the file cannot be read or is not a record.
    """
    try:
        text = read_file(path, limit=TEXT_LIMIT)
    except OSError as error:
        raise UserError(f"record {path} cannot be read: {error.strerror}") from error
    content = decode(text, source=str(path))
    return Record({**content, "experiment": canonical(content["experiment"])}, path)


def warn(message: str) -> None:
    """Prints one line on standard error."""
    print(f"adaptive-nets: {message}", file=sys.stderr)


def collect(roots: Iterable[Path], *, warn: Callable[[str], None] = warn) -> list[Record]:
    """Collects the records below some folders; keeps the newer of two records for one seed.

    The entry `changed` is of the preset as it is in this version, so that it names the flags with
    which the run can be repeated.

    Args:
        roots: folders; missing ones are skipped.
        warn: callback that gets a message for each skipped file that is not a record.
    """
    newest: dict[tuple, Record] = {}
    for root in roots:
        published = root == PUBLISHED
        for path in sorted(root.glob("*/*/*.json") if published else root.rglob(RECORD)):
            try:
                record = read_record(path)
            except UserError as error:
                warn(f"{error}; it is skipped")
                continue
            record = _compared_with_preset(record)
            key = (*record.group, record.seed)
            if key not in newest or record.finished > newest[key].finished:
                newest[key] = record
    return list(newest.values())


def _compared_with_preset(record: Record) -> Record:
    """Returns the record with the entry `changed` of the preset as it is in this version.

    A record of an experiment or a preset that this version does not have is returned as it is.
    """
    experiment = experiments().get(record.experiment)
    preset = experiment.presets.get(record.preset) if experiment else None
    if preset is None:
        return record
    changed = config_lib.changed_since(record.config, preset.config)
    return dataclasses.replace(record, content={**record.content, "changed": changed})


def default_roots() -> list[Path]:
    """Returns the folders of published records and of local runs."""
    return [PUBLISHED, LOCAL]


def check_publishable(record: Record) -> None:
    """Checks that a record can be published.

    Raises:
        UserError: the experiment or preset does not exist in this version, or the record does not
            match the schema.
    """
    validated(dict(record.content), source=str(record.path))
    find_preset(find_experiment(record.experiment), record.preset)


def publish(record: Record, root: Path = PUBLISHED) -> Path:
    """Copies a record and its arrays to the published records; returns the new path.

    A run with changed flags gets a separate name, so that it does not replace the preset's record.

    Raises:
        UserError: the record cannot be published, see `check_publishable`.
    """
    check_publishable(record)
    paper, row = record.experiment.split(".", 1)
    size = f"{record.preset}-{record.config_hash[:8]}" if record.changed else record.preset
    target = root / paper / row / f"{size}-seed{record.seed}.json"
    arrays = record.path.with_name(ARRAYS)
    with naming(target):
        write_json_atomically(target, record.content)
        if arrays.is_file():
            write_bytes_atomically(target.with_suffix(".npz"), read_file(arrays))
    return target


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation over seeds (denominator n − 1; 0 for one seed)."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
