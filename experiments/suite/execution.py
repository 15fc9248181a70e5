"""Execution of an experiment: folder, data set, seeds, records."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptive_nets.data import Dataset, Split, load, random_labels
from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.errors import AbsentDataError
from adaptive_nets.data.sequences import PARITY, parity
from adaptive_nets.data.splits import divided
from adaptive_nets.data.text import TEXT, read_corpus
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import (
    lock_directory,
    remove_stale_temporaries,
    write_json_atomically,
)
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.distributed import broadcast_from_process_0, is_process_0
from experiments.suite import config as config_lib
from experiments.suite import provenance
from experiments.suite.experiment import Experiment
from experiments.suite.records import (
    ARRAYS,
    RECORD,
    Record,
    Surroundings,
    history,
    make_record,
    read_record,
    write_arrays,
)
from experiments.suite.run_folder import claimed_directory, set_aside
from experiments.suite.run_inputs import resolve_all
from kernels import record_implementations


def needs_data(config: Any) -> bool:
    """Returns whether a run reads a data set: it has a group `data`, and ``needs_data`` if any."""
    return config_lib.group(config, "data") is not None and getattr(config, "needs_data", True)


def load_data(data: Any, *, data_dir: Path | None, complete: bool) -> Dataset:
    """Loads the data set of a configuration, with its limits and random labels.

    Args:
        data: group `data` of the configuration: name, source, optional limits and labels; of a
            text its vocabulary, the length of its sequences, and limits in characters.
        data_dir: data root; None for the default.
        complete: whether to refuse an incomplete copy, unless the configuration names its source.

    Raises:
        UserError: the data set is absent, damaged or incomplete.
    """
    if hasattr(data, "vocabulary"):
        corpus = read_corpus(data.name, root=data_dir, vocabulary=data.vocabulary)
        return corpus.dataset(
            length=data.length, train_limit=data.train_limit, test_limit=data.test_limit
        )
    if data.name == PARITY:
        dataset = parity()
    else:
        dataset = _load(data.name, root=data_dir, source=data.source)
    if complete and not dataset.complete and data.source == "auto":
        size = dataset.count("train")
        raise UserError(
            f"--preset paper needs the complete data set {dataset.name!r}, found only {size:,} "
            f"training images in {dataset.location}; put the official files into a folder "
            "(adaptive-nets data list names them) and give it as --data-dir, or run --preset quick"
        )
    limits = {part: getattr(data, f"{part}_limit", 0) for part in ("train", "test")}
    dataset = truncated_dataset(dataset, **limits)
    random = getattr(data, "labels", "true") == "random"
    if random and dataset.streams:
        raise UserError(
            "--data.labels is 'random'; expected 'true', since random labels are not supported for "
            "streamed data sets"
        )
    if random and dataset.train is not None:
        labels = random_labels(
            dataset.train.labels,
            num_classes=dataset.num_classes,
            seed=data.random_label_seed,
        )
        dataset = dataclasses.replace(dataset, train=dataset.train.replace(label=labels))
    return dataset


def _load(name: str, *, root: Path | None, source: str) -> Dataset:
    """Loads a set; one whose training images may be absent, and are, is divided."""
    try:
        return load(name, root=root, source=source)
    except AbsentDataError:
        if "train" not in lookup(name).optional_splits:
            raise
        return divided(load(name, root=root, source=source, splits=("test",)))


def empty_dataset(name: str) -> Dataset:
    """Returns an empty data set, for a run that reads none."""
    return Dataset(
        name=name,
        source="none",
        location="nowhere",
        num_classes=0,
        class_names=(),
        train=None,
        test=None,
        fingerprint="none",
        complete=True,
    )


def truncated_dataset(dataset: Dataset, *, train: int, test: int) -> Dataset:
    """Returns the first images of each split.

    Args:
        dataset: data set to truncate.
        train: number of training images; 0 for all.
        test: number of test images; 0 for all.
    """

    def first(split: Split | None, limit: int) -> Split | None:
        if split is None or not 0 < limit < len(split):
            return split
        return split.first(limit)

    parts = first(dataset.train, train), first(dataset.test, test)
    limits = {"train": train, "test": test}
    streams = {
        name: split.first(limits[name] or split.size) for name, split in dataset.streams.items()
    }
    whole = parts[0] is dataset.train and parts[1] is dataset.test
    if whole and streams == dataset.streams:
        return dataset
    return dataclasses.replace(
        dataset, train=parts[0], test=parts[1], streams=streams, complete=False
    )


def execute(
    experiment: Experiment,
    *,
    preset: str,
    config: Any,
    seeds: int,
    out: Path,
    data_dir: Path | None,
    progress: ProgressReporter,
    announce: Callable[[str], None],
    fresh: bool = False,
    first_seed: int = 0,
) -> list[Record]:
    """Runs every seed that has no record yet, and returns all records.

    Every process runs all seeds; only process 0 writes files.

    Args:
        experiment: experiment to run.
        preset: name of the preset.
        config: configuration of the preset with the user's flags.
        seeds: number of seeds.
        out: folder of the run; seed s works in out/seed{s}.
        data_dir: data root; None for the default.
        progress: reporter of progress.
        announce: prints a line.
        fresh: move an earlier run in the folder aside and start from step 0.
        first_seed: first seed; the others follow it.

    Raises:
        UserError: the run fails for a reason that the user can remove.
        Interrupted: a signal stopped the run; the state is saved.
    """
    with contextlib.ExitStack() as stack:
        if is_process_0():
            stack.enter_context(lock_directory(out))
            remove_stale_temporaries(out)
            aside = set_aside(out) if fresh else None
            if aside:
                announce(f"the earlier run is moved to {aside}")
            stack.enter_context(claimed_directory(out, experiment, config, preset=preset))
        else:
            # Process 0 writes the records; the other processes write to a temporary folder.
            out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = config_lib.group(config, "data")
        if needs_data(config):
            dataset = load_data(data, data_dir=data_dir, complete=preset == "paper")
            examples = "sequences" if dataset.source == TEXT else "images"
            sizes = (
                f"{dataset.count('train'):,} training and {dataset.count('test'):,} test {examples}"
            )
            announce(f"data: {dataset.name} from {dataset.location}, {sizes}")
        elif hasattr(config, "read_data"):
            # A set of another kind than labelled images, which the configuration reads itself.
            dataset = config.read_data(root=data_dir)
            announce(
                f"data: {dataset.name} from {dataset.location}, {dataset.count('train'):,} examples"
            )
        else:
            dataset = empty_dataset(data.name if data else "none")
            announce("data: none, this experiment reads no data set")
        records = []
        for seed in range(first_seed, first_seed + seeds):
            directory = out / f"seed{seed}"
            path = directory / RECORD
            if broadcast_from_process_0(path.exists()):
                if is_process_0():
                    _check_finished(path)
                announce(f"seed {seed}: finished earlier, {path}")
            else:
                directory.mkdir(exist_ok=True)
                _run_seed(experiment, preset, config, dataset, directory, seed, progress)
                announce(f"seed {seed}: record written to {path}")
            if path.exists():
                records.append(read_record(path))
        return records


def _check_finished(path: Path) -> None:
    """Raises a `UserError` that says what to do if the record of a finished seed is damaged."""
    try:
        read_record(path)
    except UserError as error:
        raise UserError(
            f"{error}; move it away and run the same command to measure this seed again"
        ) from error


def _run_seed(
    experiment: Experiment,
    preset: str,
    config: Any,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
) -> None:
    inputs = resolve_all(config, seed=seed)
    with record_implementations() as kernels:
        surroundings = Surroundings(provenance.commit(), provenance.load(), kernels)
        outcome = experiment.load_runner()(
            config,
            dataset=dataset,
            directory=directory,
            seed=seed,
            progress=progress,
            title=f"{experiment.id.split('.', 1)[1]} seed {seed}",
        )
    record = make_record(
        experiment,
        preset=preset,
        seed=seed,
        config=config,
        dataset=dataset,
        outcome=outcome,
        curves=history(directory / "metrics.jsonl"),
        surroundings=surroundings,
        inputs=inputs,
    )
    write_arrays(directory / ARRAYS, outcome.arrays)
    write_json_atomically(directory / RECORD, record)
