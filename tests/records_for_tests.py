"""Records made up by tests, of the real form."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from toy_papers import PRUNED

from adaptive_nets.runtime.files import write_json_atomically
from experiments.suite import config as config_lib
from experiments.suite.experiment import Outcome
from experiments.suite.record_schema import SCHEMA
from experiments.suite.records import (
    ARRAYS,
    RECORD,
    Record,
    Surroundings,
    make_record,
    write_arrays,
)
from experiments.suite.registry import experiments


def made_up(experiment=PRUNED, *, preset="paper", seed=0, train=60000, changed=(), **metrics):
    """A record with the given metrics (value, or (value, unit))."""
    entry = experiments()[experiment]
    config = entry.presets[preset].config
    units = {"compression": "x", "nll": "nats", "file_size": "bytes"}
    return {
        "schema": SCHEMA,
        "experiment": experiment,
        "preset": preset,
        "row": entry.row,
        "seed": seed,
        "metrics": {
            name.replace("__", "."): {
                "value": value,
                "unit": units.get(name, "%"),
                "count": 10000,
                "note": "" if value is not None else "infinite: no weight is kept",
            }
            for name, value in metrics.items()
        },
        "config": config_lib.to_dict(config),
        "config_hash": config_lib.identity_hash(config),
        "changed": list(changed),
        "code": {"commit": "0123456789abcdef", "dirty": False},
        "packages": {"python": "3.13.0", "jax": "0.12.0.1"},
        "devices": {"platform": "cpu", "kind": "cpu", "count": 1, "processes": 1, "cpu_cores": 2},
        "seconds": 61.5,
        "steps": 120000,
        "dataset": {
            "name": "mnist",
            "source": "files",
            "train": train,
            "test": 10000,
            "complete": train == 60000,
            "fingerprint": f"{train:064d}",
        },
        "kernels": {},
        "tuned_table": None,
        "inputs": [],
        "machine": {"load_at_start": [0.1, 0.2], "load_at_end": [1.9, 1.5], "governor": None},
        "finished": "2026-11-22T20:00:00+00:00",
        "history": {"test/error": [[100, 0.05], [200, 0.02]], "train/loss": [[100, 0.3]]},
    }


def write(record: dict, root: Path) -> Path:
    """Puts a record where a run would."""
    path = root / record["experiment"] / record["preset"] / f"seed{record['seed']}" / "record.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(copy.deepcopy(record)))
    return path


def write_run(
    root: Path,
    name: str,
    outcome: Outcome,
    curves: Mapping[str, Any],
    *,
    preset: str = "paper",
    seed: int = 0,
    complete: bool = True,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Record:
    """Writes record and arrays of a made-up outcome as a run does, and returns the record."""
    experiment = experiments()[name]
    sizes = {"train": 60000, "test": 10000} if complete else {"train": 4000, "test": 1000}
    dataset = SimpleNamespace(
        name="mnist",
        source="files" if complete else "embedded",
        count=sizes.get,
        complete=complete,
        fingerprint=("ab" if complete else "cd") * 32,
    )
    content = make_record(
        experiment,
        preset=preset,
        seed=seed,
        config=experiment.presets[preset].config,
        dataset=dataset,
        outcome=outcome,
        curves=curves,
        surroundings=Surroundings(
            {"commit": "0123456789abcdef", "dirty": False}, (0.1, 0.2), {"masked_conv": ["xla"]}
        ),
    )
    if edit:
        content = copy.deepcopy(content)
        edit(content)
    folder = root / f"{name}-{preset}-{complete}" / f"seed{seed}"
    write_arrays(folder / ARRAYS, outcome.arrays)
    write_json_atomically(folder / RECORD, content)
    return Record(content, folder / RECORD)
