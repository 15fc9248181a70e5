"""Loading of data sets by name from all sources."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.embedded import EMBEDDED, find_embedded
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.folders import data_root
from adaptive_nets.data.official import check_whole, find_official, read_official
from adaptive_nets.data.splits import Dataset, Split, digest, fingerprint
from adaptive_nets.data.streams import find_split, open_streamed
from adaptive_nets.data.tfds_sets import find_prepared, read_prepared
from adaptive_nets.runtime.errors import UserError, did_you_mean

SOURCES = ("tfds", "files", "embedded")


def load(
    name: str,
    *,
    root: str | Path | None = None,
    source: str = "auto",
    splits: Sequence[str] = ("train", "test"),
) -> Dataset:
    """Loads a set into memory and verifies every known checksum.

    Args:
        name: a name of the catalogue, such as ``"mnist"``.
        root: the data root; see `data_root`.
        source: ``"tfds"`` (a prepared set), ``"files"`` (the official files), ``"embedded"`` (the
            official files that come with this distribution), or ``"auto"``: the first of
            these that is there. A partial or damaged copy is an error; the search does not go past
            it.
        splits: the splits to load, of ``"train"`` and ``"test"``.

    Returns:
        The set; splits that were not requested are None.

    Raises:
        UserError: a name is unknown, or the set is absent, partial, damaged or cannot be read.
    """
    info = lookup(name)
    if info.box_form:
        raise UserError(
            f"data set {name!r} has boxes instead of one label per image; expected a set of "
            "labelled images, or load it with adaptive_nets.data.boxes.load_boxes"
        )
    wanted = (splits,) if isinstance(splits, str) else tuple(splits)
    for split in wanted:
        if split not in info.splits:
            raise UserError(
                f"split {split!r} of {name} is unknown; {did_you_mean(str(split), info.splits)}"
            )
    if not wanted:
        raise UserError(f"splits of {name} is empty; expected train, test or both")
    if source not in ("auto", *SOURCES):
        raise UserError(
            f"data source {source!r} is unknown; {did_you_mean(str(source), ('auto', *SOURCES))}"
        )
    folder = data_root(root)
    if info.streamed:
        return _open(info, folder, source, wanted)
    found, location, read = _read(info, folder, source, wanted)
    return assemble(info, found, location, read)


def assemble(info: DatasetInfo, source: str, location: str, splits: dict[str, Split]) -> Dataset:
    """Assembles a set from splits and verifies their digests.

    Args:
        info: entry of the set.
        source: source of the splits, one of `SOURCES`.
        location: human-readable location of the splits.
        splits: splits by name.

    Returns:
        The data set.

    Raises:
        DamagedDataError: a split has the official count but not the official content.
    """
    digests = {name: digest(split) for name, split in splits.items()}
    official = {name: len(split) == info.splits[name] for name, split in splits.items()}
    for name, found in digests.items():
        known = info.digests.get(name)
        if official[name] and known is not None and found != known:
            raise DamagedDataError(
                f"{info.name}: the {name} split in {location} has digest {found}, "
                f"expected {known}; it is not the official one, "
                f"run `adaptive-nets data import {info.name} PATH` with the official files"
            )
    return Dataset(
        name=info.name,
        source=source,
        location=location,
        num_classes=info.num_classes,
        class_names=info.class_names,
        train=splits.get("train"),
        test=splits.get("test"),
        fingerprint=fingerprint(digests),
        complete=all(official.values()),
    )


def random_labels(labels: np.ndarray, *, num_classes: int, seed: int = 74632) -> np.ndarray:
    """Draws labels independent of the images, as in the Sparse VD paper's experiment.

    Args:
        labels: i[N], true labels; only their number is used.
        num_classes: number of classes.
        seed: seed of NumPy's legacy generator, whose stream the paper's code used.

    Returns:
        int32[N], uniform on 0 to num_classes - 1.

    Raises:
        UserError: the number of classes is not positive.
    """
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}; expected at least 1")
    generator = np.random.RandomState(seed)
    return generator.randint(0, num_classes, size=len(labels)).astype(np.int32)


def _read(
    info: DatasetInfo, root: Path, source: str, splits: tuple[str, ...]
) -> tuple[str, str, dict[str, Split]]:
    """Reads the first existing copy; returns source, location and splits."""
    if source in ("auto", "tfds"):
        prepared = find_prepared(info, root)
        if prepared is not None:
            return "tfds", str(prepared.folder), read_prepared(prepared.folder, info, splits)
    if source in ("auto", "files"):
        official = find_official(info, root)
        if official is not None:
            check_whole(info, official)
            return "files", str(official.folder), read_official(info, official, splits)
    if source in ("auto", "embedded"):
        embedded = find_embedded(info)
        if embedded is not None:
            return "embedded", str(embedded.folder), read_official(info, embedded, splits)
    raise AbsentDataError(absent_message(info, root, source))


def _open(info: DatasetInfo, root: Path, source: str, splits: tuple[str, ...]) -> Dataset:
    """Opens a streamed set."""
    prepared = find_prepared(info, root) if source in ("auto", "tfds") else None
    if prepared is None:
        raise AbsentDataError(absent_message(info, root, source))
    opened = open_streamed(prepared.folder, info)
    streams = {name: find_split(opened, name) for name in splits}
    return Dataset(
        name=info.name,
        source="tfds",
        location=str(prepared.folder),
        num_classes=len(opened.class_names),
        class_names=opened.class_names,
        train=None,
        test=None,
        fingerprint=opened.fingerprint,
        complete=all(len(split) == info.splits[name] for name, split in streams.items()),
        streams=streams,
    )


def absent_message(info: DatasetInfo, root: Path, source: str = "auto") -> str:
    """Returns the one-line error message of an absent set, with its remedy.

    Args:
        info: entry of the set.
        root: data root.
        source: requested source.
    """
    if info.streamed:
        return (
            f"{info.name}: no prepared set in {root / 'tfds' / info.stored_as}; run "
            f"`adaptive-nets data build {info.name} PATH` with the folder that holds its images, a "
            "folder for each class, or its archives"
        )
    if source == "embedded":
        there = f"{', '.join(EMBEDDED[:-1])} and {EMBEDDED[-1]}"
        return f"{info.name}: only {there} are embedded; use source auto, tfds or files"
    command = f"`adaptive-nets data import {info.name} PATH` with the folder that holds them"
    if source == "tfds":
        where = root / "tfds" / info.stored_as
        return f"{info.name}: no prepared set in {where}; get the official files and run {command}"
    form = info.forms[0]
    names = ", ".join(
        file.candidates[0] for file in form.files if file.split not in info.optional_splits
    )
    return (
        f"{info.name}: nothing found in {root}; put {names} into {root / form.folders[0]}, "
        f"or run {command}"
    )
