"""Survey, verification and import of data sets: the work behind `adaptive-nets data`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adaptive_nets.data.boxes.importing import import_boxes, own_set
from adaptive_nets.data.boxes.inspection import inspect, own_sets
from adaptive_nets.data.catalogue import CATALOGUE, lookup
from adaptive_nets.data.checksums import CHECKSUMS, check_sums
from adaptive_nets.data.embedded import find_embedded
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import PartialDataError
from adaptive_nets.data.fixations import inspection as fixations
from adaptive_nets.data.fixations.sets import FIXATION_SETS
from adaptive_nets.data.folders import data_root, list_names
from adaptive_nets.data.image_records import build
from adaptive_nets.data.official import (
    OfficialCopy,
    check_whole,
    find_official,
    read_official,
)
from adaptive_nets.data.preparation import Progress, prepare
from adaptive_nets.data.sources import absent_message, assemble
from adaptive_nets.data.splits import Split
from adaptive_nets.data.streams import open_streamed
from adaptive_nets.data.tfds_sets import check_format, find_prepared, read_prepared
from adaptive_nets.runtime.errors import UserError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Finding:
    """State of one copy of a set.

    Attributes:
        name: name of the set.
        title: human-readable name of the set.
        state: ``"ok"``, ``"partial"``, ``"damaged"`` or ``"absent"``.
        message: one line with the findings and, if needed, the remedy.
        source: ``"tfds"``, ``"import"``, ``"files"`` or ``"embedded"``; None if absent.
        form: how it is stored there: ``"array_record"``, ``"idx"``, ``"binary"``, ``"python"``,
            ``"coco"``, ``"voc"``, ``"fixations"``; None if absent or unknown.
        location: the folder or file; None if absent.
        counts: examples of each split that is there.
        complete: whether these are the official counts.
        class_counts: examples of each class, or boxes of each class, by split; empty if the set
            was not read.
        fingerprint: of the splits that are there; None if the set was not read.
    """

    name: str
    title: str
    state: str
    message: str
    source: str | None = None
    form: str | None = None
    location: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    complete: bool = False
    class_counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    fingerprint: str | None = None


@dataclass(frozen=True)
class _Copy:
    """Unread copy of a set."""

    source: str
    form: str
    location: Path
    counts: Mapping[str, int]
    checked_by: str
    read: Callable[[Sequence[str]], dict[str, Split]]


def survey(root: str | Path | None = None) -> list[Finding]:
    """Finds every set of the catalogue, imported ones and those with fixations, without reading.

    Args:
        root: data root, see `data_root`.

    Returns:
        For each set, the copy that `load` would read, or what is wrong or missing.

    Raises:
        UserError: the root cannot be used.
    """
    folder = data_root(root)
    # The first copy is the one that `load` reads.
    infos = [*CATALOGUE.values(), *own_sets(folder)]
    labelled = [_find(info, folder, read=False)[0] for info in infos]
    return [*labelled, *_with_fixations(FIXATION_SETS, folder, read=False)]


def verify(name: str | None = None, root: str | Path | None = None) -> list[Finding]:
    """Reads and checks every copy of a set, or of all sets.

    Args:
        name: name in the catalogue, of an imported set or of a set with fixations; None for all.
        root: data root, see `data_root`.

    Returns:
        One finding for each copy, in the search order of `load`, and one for each absent set.

    Raises:
        UserError: the name is unknown or the root cannot be used.
    """
    folder = data_root(root)
    if name in FIXATION_SETS:
        return _with_fixations([name], folder, read=True)
    infos = [*CATALOGUE.values(), *own_sets(folder)]
    if name is not None:
        names = [*(info.name for info in infos), *FIXATION_SETS]
        if name not in names:
            raise UserError(f"data set {name!r} is unknown; {did_you_mean(name, names)}")
        infos = [info for info in infos if info.name == name]
    found = [finding for info in infos for finding in _find(info, folder, read=True)]
    return found if name else [*found, *_with_fixations(FIXATION_SETS, folder, read=True)]


def _with_fixations(names: Sequence[str], folder: Path, *, read: bool) -> list[Finding]:
    fields = [found for name in names for found in fixations.inspect(name, folder, read=read)]
    return [Finding(**found) for found in fields]


def import_dataset(
    name: str,
    path: str | Path,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    known_as: str = "",
    class_names: Sequence[str] = (),
    skip_bad: bool = False,
    remark: Callable[[str], None] = lambda text: None,
) -> Path:
    """Prepares a set in the data root from its official files.

    A set with boxes is not copied: its annotations are checked and indexed, and its photographs
    stay where they are.

    Args:
        name: name in the catalogue.
        path: folder with the official files, or a data root that contains it.
        root: data root, see `data_root`; created if missing.
        progress: called with a description, the amount done and the total.
        known_as: for a set with boxes, another name under which it is imported; `name` is then its
            layout, ``"coco"`` or ``"voc"``.
        class_names: for a set with boxes, names of the classes by label; those of the files if
            empty.
        skip_bad: for a set with boxes, whether wrong annotations and unreadable photographs are
            left out.
        remark: for a set with boxes, called with lines about what was found.

    Returns:
        Folder of the prepared set, ROOT/tfds/NAME/VERSION, or of the index, ROOT/boxes/NAME.

    Raises:
        AlreadyImportedError: the set is already prepared and whole.
        UserError: a name or folder is wrong, a file is missing or damaged, or the set cannot be
            written.
    """
    info = own_set(known_as, name) if known_as else lookup(name)
    if info.box_form:
        return import_boxes(
            info,
            _existing_folder(path, f"the images and annotations of {info.name}"),
            data_root(root, must_exist=False),
            class_names=class_names,
            skip_bad=skip_bad,
            report=progress or (lambda what, done, total: None),
            remark=remark,
        )
    for flag, value in (("--classes", ",".join(class_names)), ("--skip-bad", skip_bad)):
        if value:
            raise UserError(f"{flag} is {value!r}; expected it for a set with boxes only")
    if info.streamed:
        raise UserError(
            f"{name} is not imported but built; run `adaptive-nets data build {name} {path}`"
        )
    source_dir = _existing_folder(path, f"the official files of {name}, unpacked")
    return prepare(info, source_dir, data_root(root, must_exist=False), progress=progress)


def build_dataset(
    name: str,
    path: str | Path,
    root: str | Path | None = None,
    *,
    hold_out: int = 0,
    progress: Progress = lambda what, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Path:
    """Builds a streamed set from a collection of images.

    Args:
        name: name in the catalogue, such as ``"imagenet"``.
        path: collection of images, see `image_collections.find_parts`.
        root: data root, see `data_root`; created if missing.
        hold_out: interval of held-out images, see `image_records.build`.
        progress: called with a description, the amount done and the total.
        remark: called with lines about the classes and files that were passed over.

    Returns:
        Folder of the prepared set, ROOT/tfds/NAME/VERSION.

    Raises:
        AlreadyImportedError: the set is already built.
        UserError: a name or folder is wrong, an image is damaged, or the set cannot be written.
    """
    info = lookup(name)
    if not info.streamed or info.box_form:
        raise UserError(
            f"{name} is not built but imported; run `adaptive-nets data import {name} {path}`"
        )
    folder = _existing_folder(path, f"the images of {name}, or its archives")
    target = data_root(root, must_exist=False)
    return build(info, folder, target, hold_out=hold_out, report=progress, remark=remark)


def _existing_folder(path: str | Path, expected: str) -> Path:
    folder = Path(os.path.expanduser(path))
    if not os.path.isdir(folder):
        fault = "is a file" if os.path.isfile(folder) else "does not exist or cannot be reached"
        raise UserError(f"PATH {folder} {fault}; expected the folder with {expected}")
    list_names(folder)
    return folder


def _find(info: DatasetInfo, root: Path, *, read: bool) -> list[Finding]:
    """Returns a finding for each copy, or one for an absent set."""
    if info.box_form:
        return [Finding(**fields) for fields in inspect(info, root, read=read)]
    if info.streamed:
        return [_find_streamed(info, root, read=read)]
    findings = []
    for source, find in (
        ("tfds", _find_prepared),
        ("files", _find_official),
        ("embedded", _find_embedded),
    ):
        copy = None
        try:
            copy = find(info, root)
            if copy is not None:
                findings.append(_examine(info, copy, read=read))
        except UserError as error:
            findings.append(
                Finding(
                    name=info.name,
                    title=info.title,
                    state="partial" if isinstance(error, PartialDataError) else "damaged",
                    message=str(error),
                    source=source,
                    form=copy.form if copy else None,
                    location=str(copy.location) if copy else None,
                    counts=copy.counts if copy else {},
                )
            )
    return findings or [
        Finding(
            name=info.name, title=info.title, state="absent", message=absent_message(info, root)
        )
    ]


def _find_streamed(info: DatasetInfo, root: Path, *, read: bool) -> Finding:
    """Returns the finding of a streamed set, whose files are checked by their sums only."""
    copy = None
    try:
        copy = find_prepared(info, root)
        if copy is None:
            message = absent_message(info, root)
            return Finding(name=info.name, title=info.title, state="absent", message=message)
        check_format(info, copy)
        opened = open_streamed(copy.folder, info)
        how = (
            f"{check_sums(copy.folder, info)} files match the checksums of the build"
            if read
            else "not read"
        )
    except UserError as error:
        return Finding(
            name=info.name,
            title=info.title,
            state="damaged",
            message=str(error),
            source="tfds",
            location=str(copy.folder) if copy else None,
        )
    counts = {name: len(split) for name, split in opened.splits.items()}
    sizes = " + ".join(f"{n:,} {split}" for split, n in counts.items())
    complete = counts == dict(info.splits)
    official = (
        ""
        if complete
        else f"; the official set has {info.splits['train']:,} train of {info.num_classes} classes"
    )
    return Finding(
        name=info.name,
        title=info.title,
        state="ok",
        message=f"{sizes} of {len(opened.class_names)} classes, {how}{official}",
        source="tfds",
        form=copy.file_format,
        location=str(copy.folder),
        counts=counts,
        complete=complete,
    )


def _find_prepared(info: DatasetInfo, root: Path) -> _Copy | None:
    copy = find_prepared(info, root)
    if copy is None:
        return None
    check_format(info, copy)
    ours = CHECKSUMS in list_names(copy.folder)
    return _Copy(
        "tfds",
        copy.file_format,
        copy.folder,
        copy.counts,
        "the checksums of the import" if ours else "the records' own checksums",
        lambda splits: read_prepared(copy.folder, info, splits),
    )


def _find_official(info: DatasetInfo, root: Path) -> _Copy | None:
    copy = find_official(info, root)
    if copy is None:
        return None
    check_whole(info, copy)
    return _describe(info, copy, "files")


def _find_embedded(info: DatasetInfo, root: Path) -> _Copy | None:
    del root
    copy = find_embedded(info)
    return None if copy is None else _describe(info, copy, "embedded")


def _describe(info: DatasetInfo, copy: OfficialCopy, source: str) -> _Copy:
    known = sum(
        bool(file.md5 or (file.gz_md5 and path.suffix == ".gz"))
        for file, path in copy.paths.items()
    )
    return _Copy(
        source,
        copy.form.kind,
        copy.folder,
        {split: info.splits[split] for split in copy.splits},
        f"the known md5 of {known} of {len(copy.paths)} files" if known else "counts only",
        lambda splits: read_official(info, copy, splits),
    )


def _examine(info: DatasetInfo, copy: _Copy, *, read: bool) -> Finding:
    splits = [split for split in info.splits if split in copy.counts]
    counts = {split: copy.counts[split] for split in splits}
    class_counts, total, how = {}, None, "not read"
    if read:
        loaded = copy.read(splits)
        dataset = assemble(info, copy.source, str(copy.location), loaded)
        total, how = dataset.fingerprint, f"checked by {copy.checked_by}"
        counts = {split: len(part) for split, part in loaded.items()}
        class_counts = {
            split: tuple(np.bincount(part.labels, minlength=info.num_classes).tolist())
            for split, part in loaded.items()
        }
    needed = {split: n for split, n in info.splits.items() if split not in info.optional_splits}
    complete = all(counts.get(split) == n for split, n in needed.items()) and all(
        n == info.splits[split] for split, n in counts.items()
    )
    sizes = " + ".join(f"{n:,} {split}" for split, n in counts.items())
    message = f"{sizes}, {how}"
    if not complete:
        official = " + ".join(f"{n:,} {split}" for split, n in needed.items())
        message += (
            f"; the official set has {official}: "
            f"run `adaptive-nets data import {info.name} PATH` with its files"
        )
    return Finding(
        name=info.name,
        title=info.title,
        state="ok" if complete else "partial",
        message=message,
        source=copy.source,
        form=copy.form,
        location=str(copy.location),
        counts=counts,
        complete=complete,
        class_counts=class_counts,
        fingerprint=total,
    )
