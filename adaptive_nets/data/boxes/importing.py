"""Import of sets with boxes: every annotation and photograph is checked, then indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adaptive_nets.data.boxes.annotations import (
    AnnotatedImage,
    BadAnnotationsError,
    BoxSet,
    check_class_names,
)
from adaptive_nets.data.boxes.index import (
    NAME,
    has_index,
    read_index,
    remove_stale,
    write_index,
)
from adaptive_nets.data.boxes.loading import LAYOUTS, as_set, parse_files
from adaptive_nets.data.boxes.locations import decode_image
from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AbsentDataError, AlreadyImportedError, DamagedDataError
from adaptive_nets.runtime.errors import UserError

_THREADS = 4
_LISTED = 100  # Problems that an import lists before its error.

type Report = Callable[[str, int, int], None]
"""Callback of (description, amount done, total)."""


def import_boxes(
    info: DatasetInfo,
    folder: Path,
    root: Path,
    *,
    class_names: Sequence[str] = (),
    skip_bad: bool = False,
    report: Report = lambda what, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Path:
    """Makes a set known in a data root, see `index`; its photographs stay where they are.

    Every annotation is checked and every photograph decoded once.

    Args:
        info: entry of the set, see `own_set` for a set that is not in the catalogue.
        folder: folder of the official files.
        root: data root; created if missing.
        class_names: names of the classes by label; those of the files if empty.
        skip_bad: whether wrong annotations and unreadable photographs are left out and counted.
        report: called with the progress.
        remark: called with lines for the user: counts, and everything that is wrong.

    Returns:
        Folder of the index.

    Raises:
        AlreadyImportedError: the set is already imported and whole.
        BadAnnotationsError: an annotation or photograph is wrong.
        UserError: the files are absent or damaged, have other classes, or the index cannot be
            written.
    """
    if class_names:
        check_class_names(list(class_names), "--classes")
    _refuse_second(info, root)
    report("reading the annotations", 0, 1)
    parsed = parse_files(info, folder.absolute(), class_names=class_names)
    bad, digests = check_images(parsed.splits, report)
    problems = [*parsed.problems, *bad.values()]
    if problems and (skip_bad or len(problems) > 1):
        for line in problems[:_LISTED]:
            remark(line)
        if len(problems) > _LISTED:
            remark(f"and {len(problems) - _LISTED} more")
    if problems and not skip_bad:
        raise BadAnnotationsError(
            problems, "; correct it, or leave out what is wrong with --skip-bad"
        )
    for reason, count in (("wrong annotations", parsed.problems), ("unreadable images", bad)):
        if count:
            parsed.left_out[reason] = len(count)
    parsed.splits = {
        split: tuple(image for image in images if image.file.where not in bad)
        for split, images in parsed.splits.items()
    }
    found = as_set(parsed, info, folder)
    if not any(found.splits.values()):
        raise AbsentDataError(f"{info.name}: {folder} has no image; expected at least one")
    remark(describe(found))
    remove_stale(root)
    report("writing", 0, 1)
    return write_index(root, found, digests, source=folder.absolute())


def own_set(name: str, form: str) -> DatasetInfo:
    """Returns the entry of a set that is not in the catalogue.

    Args:
        name: name of the set.
        form: its layout, ``"coco"`` or ``"voc"``.

    Raises:
        UserError: the name is taken, or cannot be one of a folder.
    """
    if name in CATALOGUE:
        raise UserError(
            f"--as is {name!r}, which is a set of the catalogue; expected another name, or run "
            f"`adaptive-nets data import {name} PATH`"
        )
    if not NAME.fullmatch(name):
        raise UserError(
            f"--as is {name!r}; expected a name of lower-case letters, digits, '.', '-' and '_'"
        )
    if form not in LAYOUTS:
        raise UserError(
            f"NAME is {form!r} with --as {name}; expected the layout, {' or '.join(LAYOUTS)}"
        )
    return DatasetInfo(
        name=name,
        title=name,
        image_shape=(0, 0, 3),
        label_names={"label": ()},
        splits={},
        forms=(),
        licence="that of its source",
        streamed=True,
        box_form=form,
    )


def check_images(
    splits: dict[str, tuple[AnnotatedImage, ...]], report: Report
) -> tuple[dict[str, str], dict[str, str]]:
    """Decodes every photograph.

    Args:
        splits: images by split.
        report: called with the progress.

    Returns:
        What is wrong, one line for each unreadable photograph, and the sha256, hex, of the others;
        both by `ImageLocation.where`.
    """
    images = [image for split in splits.values() for image in split]
    bad: dict[str, str] = {}
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, (image, found) in enumerate(zip(images, pool.map(_check, images), strict=True)):
            if isinstance(found, str):
                digests[image.file.where] = found
            else:
                bad[image.file.where] = str(found)
            if done % 50 == 0 or done == len(images) - 1:
                report("checking the images", done + 1, len(images))
    return bad, digests


def _check(image: AnnotatedImage) -> str | DamagedDataError:
    try:
        content = image.file.read()
        decode_image(content, image.file.where, height=image.height, width=image.width)
    except DamagedDataError as error:
        return error
    return hashlib.sha256(content).hexdigest()


def describe(found: BoxSet) -> str:
    """Describes a set in one line: images of each split, boxes, classes, what was left out."""
    sizes = " + ".join(f"{count:,} {split}" for split, count in found.counts().items())
    crowds = sum(int(i.crowd.sum()) for images in found.splits.values() for i in images)
    ignored = f" ({crowds:,} of them ignore regions)" if crowds else ""
    left = "".join(f", left out {count:,} {reason}" for reason, count in found.left_out.items())
    return f"{sizes}, {found.num_boxes():,} boxes{ignored} of {found.num_classes} classes{left}"


def _refuse_second(info: DatasetInfo, root: Path) -> None:
    """Raises `AlreadyImportedError` if the set is imported and its photographs are there."""
    if not has_index(root, info.name):
        return
    try:
        found, _ = read_index(root, info.name)
        for images in found.splits.values():
            for image in images:
                if not Path(image.file.path).exists():
                    return
    except UserError:
        return
    raise AlreadyImportedError(
        f"{info.name} is already imported: {found.location} is whole; nothing was changed (delete "
        "that folder to import it again)"
    )
