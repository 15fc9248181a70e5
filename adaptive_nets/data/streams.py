"""Streamed sets: image records, decoded in the background by Grain.

The assignment of examples to steps and rows depends only on the seed, not on the number of
processes, workers or threads. Each process reads and decodes only the rows of its own devices.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import hashlib
import importlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.checksums import CHECKSUMS
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import error_summary, file_digest, list_names, read_bytes, read_json
from adaptive_nets.data.image_transforms import (
    CROP_AREA,
    decode_for_evaluation,
    decode_for_training,
)
from adaptive_nets.data.splits import WEIGHT, ExampleSource, StreamedSplit
from adaptive_nets.data.tfds_sets import check_format, describe_prepared, import_tfds
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import TEXT_LIMIT

# Split -> stored names in order of preference.
_STORED = {"train": ("train",), "test": ("validation", "val", "test")}


@dataclass(frozen=True)
class StreamedSet:
    """Opened streamed set.

    Attributes:
        splits: ``"train"`` and ``"test"``, if present.
        class_names: names of the classes, by label.
        folder: folder of the version.
        fingerprint: sha256, hex, of the files' checksums, or of their sizes if there are none.
    """

    splits: Mapping[str, StreamedSplit]
    class_names: tuple[str, ...]
    folder: Path
    fingerprint: str


def open_streamed(folder: str | Path, info: DatasetInfo) -> StreamedSet:
    """Opens a prepared set and checks the length of every record file.

    Args:
        folder: folder of the version.
        info: entry of the set.

    Raises:
        DamagedDataError: a file, named by the message, is missing or damaged.
        UserError: the set has an unsupported format, or TFDS is not installed.
    """
    folder = Path(folder)
    copy = describe_prepared(info, folder)
    check_format(info, copy)
    import_tfds()
    described = read_json(folder / "dataset_info.json", remedy=_remedy(info))["splits"]
    lengths = {s["name"]: tuple(int(n) for n in s["shardLengths"]) for s in described}
    names = folder / f"{info.label_key}.labels.txt"
    classes = _read_classes(names, folder, info) if names.exists() else info.class_names
    splits = {}
    for split, stored in _STORED.items():
        name = next((name for name in stored if name in lengths), None)
        if name is None:
            continue
        count = len(lengths[name])
        paths = tuple(
            str(folder / f"{info.stored_as}-{name}.array_record-{n:05d}-of-{count:05d}")
            for n in range(count)
        )
        _check_lengths(paths, lengths[name], info)
        splits[split] = StreamedSplit(
            paths,
            lengths[name],
            sum(lengths[name]),
            info.image_shape,
            len(classes),
            info.channel_mean,
            info.channel_deviation,
        )
    return StreamedSet(splits, classes, folder, _fingerprint(folder))


def _read_classes(path: Path, folder: Path, info: DatasetInfo) -> tuple[str, ...]:
    """Reads the class names, one a line, and compares their number with the set's description.

    Raises:
        DamagedDataError: the file is not UTF-8, or has another number of names.
    """
    try:
        classes = tuple(read_bytes(path, limit=TEXT_LIMIT).decode("utf-8").split("\n"))
    except UnicodeDecodeError as error:
        raise DamagedDataError(
            f"{path}: damaged, it is not UTF-8 at byte {error.start}; {_remedy(info)}"
        ) from error
    classes = tuple(name for name in classes if name)
    described = folder / "features.json"
    content = read_json(described, remedy=_remedy(info))
    try:
        label = content["featuresDict"]["features"][info.label_key]
        count = int(label["classLabel"]["numClasses"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedDataError(
            f"{described}: damaged, it has no number of classes; {_remedy(info)}"
        ) from error
    if len(classes) != count:
        raise DamagedDataError(
            f"{path}: {len(classes)} classes, expected {count} by {described.name}; {_remedy(info)}"
        )
    return classes


def _remedy(info: DatasetInfo) -> str:
    return f"put the file back, or build the set again with `adaptive-nets data build {info.name}`"


def _check_lengths(paths: tuple[str, ...], lengths: tuple[int, ...], info: DatasetInfo) -> None:
    module = importlib.import_module("array_record.python.array_record_module")
    for path, length in zip(paths, lengths, strict=True):
        try:
            reader = module.ArrayRecordReader(path)
            found = reader.num_records()
            reader.close()
        except Exception as error:  # array_record raises many types.
            raise DamagedDataError(
                f"{path}: damaged ({error_summary(error)}); {_remedy(info)}"
            ) from error
        if found != length:
            raise DamagedDataError(
                f"{path}: damaged, {found} records, expected {length} by dataset_info.json; "
                f"{_remedy(info)}"
            )


def _fingerprint(folder: Path) -> str:
    if CHECKSUMS in list_names(folder):
        return file_digest(folder / CHECKSUMS)
    sizes = {name: os.stat(folder / name).st_size for name in sorted(list_names(folder))}
    return hashlib.sha256(repr(sizes).encode()).hexdigest()


class RecordFiles:
    """Random access to the records of several files; every error names the file."""

    def __init__(self, paths: tuple[str, ...], lengths: tuple[int, ...]):
        self._paths = paths
        self._starts = np.concatenate([[0], np.cumsum(lengths)]).tolist()
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_paths": self._paths, "_starts": self._starts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._readers, self._lock = {}, threading.Lock()

    def path_of(self, index: int) -> str:
        """Returns the file of a record."""
        return self._paths[bisect.bisect_right(self._starts, index) - 1]

    def read(self, index: int) -> bytes:
        """Reads one record."""
        shard = bisect.bisect_right(self._starts, index) - 1
        try:
            return self._reader(shard).read([index - self._starts[shard]])[0]
        except Exception as error:  # array_record raises many types.
            raise DamagedDataError(
                f"{self._paths[shard]}: record {index - self._starts[shard]} is damaged "
                f"({error_summary(error)}); put the file back or build the set again, "
                "and run the same command to resume"
            ) from error

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if shard not in self._readers:
                if not os.path.exists(self._paths[shard]):
                    raise FileNotFoundError(2, "the file is missing", self._paths[shard])
                module = importlib.import_module("array_record.python.array_record_module")
                self._readers[shard] = module.ArrayRecordReader(
                    self._paths[shard], options="readahead_buffer_size:0"
                )
            return self._readers[shard]


@functools.lru_cache(maxsize=2)
def epoch_permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """Returns the order of the training examples in one epoch, int64[count], read-only."""
    order = np.random.default_rng((seed, epoch)).permutation(count)
    order.flags.writeable = False
    return order


@dataclass(frozen=True)
class StreamOptions:
    """Performance options of a stream; they do not affect its batches.

    Attributes:
        workers: number of decoding processes; 0 decodes in threads of this process.
        threads: number of decoding threads in each worker, or in this process.
        prefetch: number of batches prepared ahead of time.
    """

    workers: int = 0
    threads: int = 4
    prefetch: int = 2


class _Examples:
    """Grain source of this process's examples in the order of use.

    With W workers, Grain gives worker w every W-th element from w on and takes batches from the
    workers in turn. The elements are therefore permuted so that one worker reads a whole batch.
    """

    def __init__(
        self,
        source: ExampleSource,
        *,
        rows: np.ndarray,
        batch_size: int,
        first: int,
        batches: int,
        workers: int,
        seed: int | None,
    ):
        self._source = source
        self._rows, self._batch_size = rows, batch_size
        self._first, self._batches = first, batches
        self._workers = max(workers, 1)
        self._seed = seed

    def __len__(self) -> int:
        # Rounded up to whole rounds of the workers; elements beyond the last batch are never read.
        rounds = -(-self._batches // self._workers)
        return rounds * self._workers * len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place, worker = divmod(int(index), self._workers)
        in_worker, row = divmod(place, len(self._rows))
        step = self._first + in_worker * self._workers + worker
        return self._example(step, int(self._rows[row]))

    def _example(self, step: int, row: int) -> dict[str, Any]:
        own = getattr(self._source, "example", None)
        if own is not None:
            return own(step, row, batch_size=self._batch_size, seed=self._seed)
        count = self._source.size
        if self._seed is None:
            number = step * self._batch_size + row
            weight, number = np.float32(number < count), min(number, count - 1)
            return {**self._source.read(number, None), WEIGHT: weight}
        epoch, within = divmod(step, count // self._batch_size)
        order = epoch_permutation(self._seed, epoch, count)
        number = int(order[within * self._batch_size + row])
        generator = np.random.default_rng((self._seed, 1 + epoch, number))
        return self._source.read(number, generator)


def evaluation_batches(split: StreamedSplit | ExampleSource, batch_size: int) -> int:
    """Returns the number of batches in which `stream` gives every example of a split once."""
    own = getattr(split, "num_batches", None)
    return own(batch_size) if own is not None else -(-split.size // batch_size)


class PhotographReader:
    """Decodes the examples of a `StreamedSplit`; an `ExampleSource`.

    Args:
        split: where they are.
        flip: mirror half of the images, in training.
        crop_area: range of the area of random crops in training, as shares of the image.
    """

    def __init__(
        self,
        split: StreamedSplit,
        *,
        flip: bool = False,
        crop_area: tuple[float, float] = CROP_AREA,
    ):
        self._files = RecordFiles(split.paths, split.lengths)
        self._split, self._flip, self._crop_area = split, flip, crop_area

    @property
    def size(self) -> int:
        """Number of examples."""
        return self._split.size

    def first(self, count: int) -> PhotographReader:
        """The first examples, at most so many."""
        split = self._split.first(count)
        return PhotographReader(split, flip=self._flip, crop_area=self._crop_area)

    def read(self, number: int, generator: np.random.Generator | None) -> dict[str, Any]:
        """Image and label; a random crop in training, the central one in evaluation."""
        content, label = self._parse(number)
        size = self._split.image_shape[0]

        def decode() -> np.ndarray:
            if generator is None:
                return decode_for_evaluation(content, size=size)
            return decode_for_training(
                content, size=size, flip=self._flip, generator=generator, area=self._crop_area
            )

        return {"image": self._decoded(number, decode), "label": label}

    def _parse(self, number: int) -> tuple[bytes, np.ndarray]:
        record = self._files.read(number)
        example = importlib.import_module("tensorflow_datasets.proto").tf_example_pb2.Example

        def parse() -> tuple[bytes, np.ndarray]:
            feature = example.FromString(record).features.feature
            label = feature["label"].int64_list.value[0]
            if not 0 <= label < self._split.num_classes:
                raise ValueError(f"label {label}, expected 0 to {self._split.num_classes - 1}")
            return feature["image"].bytes_list.value[0], np.int32(label)  # pyright: ignore

        return self._decoded(number, parse)

    def _name_of(self, number: int) -> str:
        """Name of a photograph's file as its record gives it, for messages."""
        example = importlib.import_module("tensorflow_datasets.proto").tf_example_pb2.Example
        with contextlib.suppress(Exception):  # The record may be what is damaged.
            feature = example.FromString(self._files.read(number)).features.feature
            return f", {feature['file_name'].bytes_list.value[0].decode('utf-8', 'replace')!r},"
        return ""

    def _decoded(self, number: int, decode):
        try:
            return decode()
        except Exception as error:  # Pillow and protobuf raise many types.
            raise DamagedDataError(
                f"{self._files.path_of(number)}: example {number} of the split"
                f"{self._name_of(number)} cannot be decoded ({error_summary(error)}); put the file "
                "back or build the set again, and run the same command to resume"
            ) from error


def stream(
    split: StreamedSplit | ExampleSource,
    *,
    rows: np.ndarray,
    batch_size: int,
    first: int,
    batches: int,
    options: StreamOptions,
    seed: int | None = None,
    flip: bool = False,
    crop_area: tuple[float, float] = CROP_AREA,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches of a split, decoded ahead of time.

    Args:
        split: where they come from.
        rows: places within each batch that this process reads, ascending.
        batch_size: of all processes together.
        first: number of the first batch: the step that the run resumes from.
        batches: how many there are from there on.
        options: how to read.
        seed: of the order and of the random crops, for training. Without one the examples come in
            stored order with a central crop, and ``weight``, which is 0 for what pads the last
            batch.
        flip: mirror half of the photographs of a `StreamedSplit`, in training.
        crop_area: range of the area of random crops of a `StreamedSplit`, in training.

    Yields:
        {"image": uint8[b, H, W, 3], "label": int32[b]}, or what the source reads, stacked; b is the
        number of rows.

    Raises:
        DamagedDataError: a record cannot be read; the message names its file.
    """
    grain = importlib.import_module("grain")
    source: Any = split
    if isinstance(split, StreamedSplit):
        source = PhotographReader(split, flip=flip, crop_area=crop_area)
    examples = _Examples(
        source,
        rows=rows,
        batch_size=batch_size,
        first=first,
        batches=batches,
        workers=options.workers,
        seed=seed,
    )
    ahead = max(options.prefetch * len(rows), options.threads)
    dataset = (
        grain.MapDataset.source(examples)
        .to_iter_dataset(grain.ReadOptions(options.threads, ahead))
        .batch(len(rows))
    )
    if options.workers:
        # Grain reads absl's flags, which are parsed only in absl programs.
        flags = importlib.import_module("absl.flags").FLAGS
        if not flags.is_parsed():
            flags.mark_as_parsed()
        several = grain.MultiprocessingOptions(options.workers, options.prefetch)
        dataset = dataset.mp_prefetch(several)
    iterator = iter(dataset)
    try:
        for _ in range(batches):
            yield next(iterator)
    except UserError:
        raise
    except Exception as error:
        # Errors of worker processes arrive as text.
        raise _unwrap_worker_error(error) from error
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


def _unwrap_worker_error(error: Exception) -> Exception:
    marker = f"{DamagedDataError.__name__}: "
    for line in str(error).splitlines():
        if marker in line:
            return DamagedDataError(line.split(marker, 1)[1])
    return error


def find_split(found: StreamedSet, name: str) -> StreamedSplit:
    """Returns a split by name.

    Raises:
        AbsentDataError: the set has no such split.
    """
    if name not in found.splits:
        raise AbsentDataError(f"{found.folder} has no {name} part, only {', '.join(found.splits)}")
    return found.splits[name]
