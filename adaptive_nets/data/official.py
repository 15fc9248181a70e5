"""Search and reading of a set's official files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptive_nets.data.cifar import read_cifar_binary, read_cifar_python
from adaptive_nets.data.entries import DatasetInfo, Form, OfficialFile
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError, PartialDataError
from adaptive_nets.data.folders import list_names
from adaptive_nets.data.idx import read_idx
from adaptive_nets.data.splits import Split


@dataclass(frozen=True)
class OfficialCopy:
    """Copy of a set's official files, possibly partial.

    Attributes:
        form: form of the files.
        folder: folder of the files.
        paths: files that are present.
        missing: files that are missing.
    """

    form: Form
    folder: Path
    paths: Mapping[OfficialFile, Path]
    missing: tuple[OfficialFile, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits with all files present."""
        return tuple(dict.fromkeys(file.split for file in self.paths))


def find_official(info: DatasetInfo, root: Path, *, at_root: bool = False) -> OfficialCopy | None:
    """Finds the official files of a set.

    Args:
        info: entry of the set.
        root: data root.
        at_root: whether the files may also be in `root` itself.

    Returns:
        The first complete copy, else the first partial one, else None.

    Raises:
        DamagedDataError: a folder cannot be read.
    """
    partial = None
    for form in info.forms:
        for folder in ([root] if at_root else []) + [root / name for name in form.folders]:
            copy = _find_form(info, form, folder)
            if copy is not None and not copy.missing:
                return copy
            partial = partial or copy
    return partial


def check_whole(info: DatasetInfo, copy: OfficialCopy) -> None:
    """Checks that a copy is complete.

    Args:
        info: entry of the set.
        copy: copy of the set.

    Raises:
        PartialDataError: a file is missing.
    """
    if copy.missing:
        names = " or ".join(copy.missing[0].candidates)
        raise PartialDataError(
            f"{info.name}: {names} is missing in {copy.folder} "
            f"({len(copy.paths)} of {len(copy.paths) + len(copy.missing)} files are there); "
            "add it"
        )


def read_official(info: DatasetInfo, copy: OfficialCopy, splits: Sequence[str]) -> dict[str, Split]:
    """Reads and checks splits of a copy.

    Args:
        info: entry of the set.
        copy: copy of the set.
        splits: names of splits.

    Returns:
        Split name -> images uint8[N, H, W, C] and labels int32[N].

    Raises:
        AbsentDataError: an optional split is absent.
        PartialDataError: a file is missing.
        DamagedDataError: a file is unreadable or not the official one.
    """
    read = {}
    for name in splits:
        images, labels = read_official_arrays(info, copy, name)
        read[name] = Split(images=images, labels=labels[info.label_key])
    return read


def read_official_arrays(
    info: DatasetInfo, copy: OfficialCopy, split: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Reads one split with every kind of label in its files.

    Args:
        info: entry of the set.
        copy: copy of the set.
        split: name of the split.

    Returns:
        Images uint8[N, H, W, C], and int32[N] for each key of `info.label_names`.

    Raises:
        AbsentDataError: the split is optional and absent.
        PartialDataError: a file is missing.
        DamagedDataError: a file is unreadable or not the official one.
    """
    check_whole(info, copy)
    files = {file: path for file, path in copy.paths.items() if file.split == split}
    if not files:
        others = ", ".join(copy.splits)
        raise AbsentDataError(
            f"{info.name}: the {split} split is not in {copy.folder}, only {others}; "
            f"request only {others} or add the files of {split}"
        )
    if copy.form.kind == "idx":
        images, labels = _read_idx_pair(info, files)
    else:
        images, labels = _read_cifar(info, copy.form.kind, files)
    for key, names in info.label_names.items():
        if labels[key].max(initial=0) >= len(names):
            raise DamagedDataError(
                f"{next(reversed(files.values()))}: {key} {labels[key].max()} found, "
                f"expected 0 to {len(names) - 1}; fetch the official file again"
            )
    return images, labels


def _find_form(info: DatasetInfo, form: Form, folder: Path) -> OfficialCopy | None:
    present = list_names(folder)
    paths: dict[OfficialFile, Path] = {}
    missing = []
    for file in form.files:
        # A folder of images may be named "train", like a file of CIFAR-100.
        names = (name for name in file.candidates if name in present)
        name = next((name for name in names if not os.path.isdir(folder / name)), None)
        if name is None:
            missing.append(file)
        else:
            paths[file] = folder / name
    if not paths:
        return None
    begun = {file.split for file in paths}
    needed = tuple(
        file for file in missing if file.split in begun or file.split not in info.optional_splits
    )
    return OfficialCopy(form=form, folder=folder, paths=paths, missing=needed)


def _read_idx_pair(
    info: DatasetInfo, files: Mapping[OfficialFile, Path]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    arrays = {}
    for file, path in files.items():
        shape = (file.count, *info.image_shape[:2]) if file.holds == "images" else (file.count,)
        arrays[file.holds] = read_idx(path, shape=shape, md5=file.md5, gz_md5=file.gz_md5)
    images = arrays["images"].reshape(-1, *info.image_shape)
    return images, {info.label_key: arrays["labels"].astype(np.int32)}


def _read_cifar(
    info: DatasetInfo, kind: str, files: Mapping[OfficialFile, Path]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    # The binary form stores the coarse label first.
    keys = ("coarse_label", "label") if "coarse_label" in info.label_names else ("label",)
    pickled = ("coarse_labels", "fine_labels") if len(keys) == 2 else ("labels",)
    parts = []
    for file, path in files.items():
        if kind == "binary":
            part = read_cifar_binary(path, num_labels=len(keys), count=file.count, md5=file.md5)
        else:
            part = read_cifar_python(path, label_keys=pickled, count=file.count, md5=file.md5)
        parts.append(part)
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts]).astype(np.int32)
    return images, {key: np.ascontiguousarray(labels[:, i]) for i, key in enumerate(keys)}
