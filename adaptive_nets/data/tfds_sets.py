"""Prepared TFDS sets of array_record files, read without TensorFlow.

A prepared set is at ROOT/tfds/NAME/VERSION or, in TFDS's own layout, at ROOT/NAME/VERSION.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptive_nets.data.checksums import check_sums
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, reimport_hint
from adaptive_nets.data.folders import check_files, error_summary, list_names, read_json
from adaptive_nets.data.records import choose_decoder, read_split
from adaptive_nets.data.splits import Split
from adaptive_nets.runtime.errors import UserError

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class PreparedCopy:
    """Copy of a prepared set, not yet verified.

    Attributes:
        folder: folder of the version.
        file_format: format of the records, such as ``"array_record"``.
        counts: number of examples of each split, from dataset_info.json.
    """

    folder: Path
    file_format: str
    counts: Mapping[str, int]


def import_tfds() -> Any:
    """Imports TFDS, which does not import TensorFlow.

    Returns:
        Module tensorflow_datasets.

    Raises:
        UserError: TFDS or array_record is not installed.
    """
    try:
        import array_record.python.array_record_module  # noqa: F401
        import importlib_resources  # noqa: F401
        import tensorflow_datasets
    except ImportError as error:
        raise UserError(
            f"prepared sets need the data packages ({error_summary(error)}); "
            "run `pip install 'adaptive-nets[data]'`"
        ) from error
    return tensorflow_datasets


def find_prepared(info: DatasetInfo, root: Path) -> PreparedCopy | None:
    """Finds a prepared set.

    Args:
        info: entry of the set.
        root: data root.

    Returns:
        The newest version in ROOT/tfds, else the newest in ROOT, else None.

    Raises:
        DamagedDataError: a folder cannot be read, or the set's description is missing or broken.
    """
    for parent in (root / "tfds" / info.stored_as, root / info.stored_as):
        versions = [name for name in list_names(parent) if _VERSION.fullmatch(name)]
        if versions:
            newest = max(versions, key=lambda name: tuple(map(int, name.split("."))))
            return describe_prepared(info, parent / newest)
    return None


def describe_prepared(info: DatasetInfo, folder: Path) -> PreparedCopy:
    """Reads the description of a prepared set without TFDS.

    Args:
        info: entry of the expected set.
        folder: folder of the version.

    Returns:
        Format and counts of the set.

    Raises:
        DamagedDataError: dataset_info.json is missing, broken, or of another set.
    """
    path = folder / "dataset_info.json"
    content = read_json(path, remedy=reimport_hint(info.name, folder))
    try:
        counts = {
            str(split["name"]): sum(int(length) for length in split.get("shardLengths", ()))
            for split in content["splits"]
        }
        # TFDS omitted the format while there was only one.
        name, file_format = str(content["name"]), str(content.get("fileFormat", "tfrecord"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedDataError(
            f"{path}: damaged, it lacks names and lengths of splits; "
            f"{reimport_hint(info.name, folder)}"
        ) from error
    if name != info.stored_as:
        raise DamagedDataError(
            f"{path}: describes the set {name!r}, expected {info.stored_as!r}; "
            f"{reimport_hint(info.name, folder)}"
        )
    check_files(folder)
    if file_format == "array_record":
        _check_shards(info, folder, content["splits"])
    return PreparedCopy(folder=folder, file_format=file_format, counts=counts)


def check_format(info: DatasetInfo, copy: PreparedCopy) -> None:
    """Checks that the records of a set are readable without TensorFlow.

    Args:
        info: entry of the set.
        copy: copy of the set.

    Raises:
        UserError: only TensorFlow can read the format.
    """
    if copy.file_format != "array_record":
        raise UserError(
            f"{copy.folder}: prepared as {copy.file_format}, expected array_record, because "
            f"{copy.file_format} cannot be read without TensorFlow; "
            f"run `adaptive-nets data import {info.name} PATH` with the official files"
        )


def read_prepared(folder: Path, info: DatasetInfo, splits: Sequence[str]) -> dict[str, Split]:
    """Reads splits of a prepared set into memory.

    Args:
        folder: folder of the version.
        info: entry of the set.
        splits: names of splits.

    Returns:
        Split name -> images uint8[N, H, W, C] and labels int32[N] in stored order.

    Raises:
        AbsentDataError: a split was not prepared.
        DamagedDataError: a file is missing, damaged or not of this set.
        UserError: only TensorFlow can read the format, or TFDS is not installed.
    """
    copy = describe_prepared(info, folder)
    check_format(info, copy)
    for name in splits:
        if name not in copy.counts:
            others = ", ".join(copy.counts)
            raise AbsentDataError(
                f"{info.name}: the {name} split is not in {folder}, only {others}; "
                f"request only {others} or import the set again with the files of {name}"
            )
    check_sums(folder, info)
    decode = choose_decoder(folder, info)
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(folder)
    except Exception as error:  # TFDS and protobuf raise many types for a broken description.
        raise DamagedDataError(
            f"{folder}: TFDS cannot open it ({error_summary(error)}); "
            f"{reimport_hint(info.name, folder)}"
        ) from error
    return {name: read_split(tfds, builder, info, name, decode) for name in splits}


def _check_shards(info: DatasetInfo, folder: Path, splits: list[dict[str, Any]]) -> None:
    """Checks that every record file with a standard name exists."""
    present = list_names(folder)
    for split in splits:
        if split.get("filepathTemplate", _TEMPLATE) != _TEMPLATE:
            continue
        number = len(split.get("shardLengths", ()))
        for index in range(number):
            shard = f"{info.stored_as}-{split['name']}.array_record-{index:05d}-of-{number:05d}"
            if shard not in present:
                raise DamagedDataError(
                    f"{folder / shard} is missing, expected it by dataset_info.json; "
                    f"{reimport_hint(info.name, folder)}"
                )
