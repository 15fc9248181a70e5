"""Atomic preparation of TFDS sets from official files."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.checksums import check_sums, write_sums
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, AlreadyImportedError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.official import check_whole, find_official, read_official_arrays
from adaptive_nets.data.splits import Split, digest
from adaptive_nets.data.tfds_sets import describe_prepared, import_tfds, read_prepared
from adaptive_nets.runtime.errors import UserError

type Progress = Callable[[str, int, int], None]
"""Callback of (description, amount done, total)."""

_UNFINISHED = ".importing-"
_STALE = 24 * 3600  # Age in seconds at which the remains of a killed import are deleted.


def prepare(
    info: DatasetInfo, source_dir: Path, root: Path, *, progress: Progress | None = None
) -> Path:
    """Prepares a set from its official files as ROOT/tfds/NAME/VERSION.

    The set is written to a temporary folder, read back, compared, and then renamed. An existing
    damaged copy is replaced.

    Args:
        info: entry of the set; sets that share its storage are prepared with it.
        source_dir: folder with the official files, or a data root that contains it.
        root: data root; created if missing.
        progress: called with the progress.

    Returns:
        Folder of the prepared set.

    Raises:
        AlreadyImportedError: the set is already prepared and whole.
        AbsentDataError: `source_dir` holds no official files of the set.
        PartialDataError: an official file is missing.
        DamagedDataError: a file is unreadable or not the official one.
        UserError: the set cannot be written, or TFDS is not installed.
    """
    report = progress or (lambda what, done, total: None)
    info = CATALOGUE.get(info.stored_as, info)
    copy = find_official(info, source_dir, at_root=True)
    if copy is None:
        names = ", ".join(" or ".join(file.candidates) for file in info.forms[0].files)
        raise AbsentDataError(
            f"{info.name}: none of its official files is in {source_dir}; expected {names} there "
            f"or in its folder {info.forms[0].folders[0]}; unpack the archive first if there is one"
        )
    check_whole(info, copy)
    import_tfds()
    from adaptive_nets.data import tfds_builder

    target = root / "tfds" / info.name / tfds_builder.VERSION
    _refuse_second(info, target, copy.splits)
    arrays = {}
    for number, split in enumerate(copy.splits):
        report("reading the official files", number, len(copy.splits))
        arrays[split] = tfds_builder.LabelledArrays(*read_official_arrays(info, copy, split))
    total = sum(len(part.images) for part in arrays.values())
    with _temporary_folder(root, info) as folder:
        _check_space(folder, sum(part.images.nbytes for part in arrays.values()))
        builder = tfds_builder.ArrayBuilder(
            info,
            arrays,
            data_dir=str(folder),
            report=lambda done: report("writing", done, total),
        )
        _run_quietly(builder, folder)
        report("verifying the written files", 0, total)
        written = Path(builder.data_dir)
        read = read_prepared(written, info, tuple(arrays))
        for split, part in arrays.items():
            expected = Split(images=part.images, labels=part.labels[info.label_key])
            if digest(read[split]) != digest(expected):
                raise UserError(
                    f"{info.name}: the {split} split written to {root} differs from its source; "
                    "check the disk and import it again"
                )
        write_sums(written)
        _publish(written, target)
        report("done", total, total)
    return target


def _refuse_second(info: DatasetInfo, target: Path, splits: Sequence[str]) -> None:
    """Raises `AlreadyImportedError` if the set is already whole, not if damaged or partial."""
    if not os.path.exists(target):
        return
    try:
        copy = describe_prepared(info, target)
        if not copy.counts.keys() >= set(splits):
            return
        if not check_sums(target, info):
            read_prepared(target, info, tuple(copy.counts))
    except UserError:
        return
    raise AlreadyImportedError(
        f"{info.name} is already imported: {target} is whole; nothing was changed "
        "(delete that folder to import it again)"
    )


@contextlib.contextmanager
def _temporary_folder(root: Path, info: DatasetInfo) -> Iterator[Path]:
    """Creates a temporary folder in ROOT/tfds, with a name that no reader considers."""
    parent = root / "tfds"
    folder = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_folders(parent)
        folder = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{info.name}-", dir=parent))
        yield folder
    except UserError:
        raise
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError on a full disk.
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
        why = "no space left on the disk" if full else error_summary(error)
        raise UserError(
            f"{info.name} cannot be written to {parent}: {why}; nothing was kept, "
            "free some space, get permission to write there or name another data root"
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def _remove_stale_folders(parent: Path) -> None:
    """Removes the remains of killed imports, but none young enough to be running."""
    for remains in parent.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError):
            if time.time() - remains.stat().st_mtime > _STALE:
                shutil.rmtree(remains, ignore_errors=True)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC, f"no space left on the disk, {needed >> 20} MiB needed, {free >> 20} free"
        )


def _run_quietly(builder, folder: Path) -> None:
    tfds = import_tfds()
    tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            download_dir=folder / "downloads",
            # Otherwise TFDS queries a cloud bucket for a prepared copy.
            download_config=tfds.download.DownloadConfig(try_download_gcs=False),
        )
    finally:
        tfds.enable_progress_bar()


def _publish(written: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        os.rename(target, written.parent / "replaced")
    os.rename(written, target)
