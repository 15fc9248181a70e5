"""Writer of large image sets as TFDS array_record files, without TensorFlow.

Each file is written completely and then renamed, so an interrupted build resumes at the first
missing file.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from adaptive_nets.data.checksums import write_sums
from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import AlreadyImportedError, DamagedDataError
from adaptive_nets.data.folders import error_summary
from adaptive_nets.data.image_classes import class_labels
from adaptive_nets.data.image_collections import EMPTY, Progress, find_parts
from adaptive_nets.data.image_files import SUFFIXES, passed_over, to_mode
from adaptive_nets.data.image_locations import ImageFile
from adaptive_nets.data.tfds_sets import describe_prepared, import_tfds
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import lock_directory, write_json_atomically
from adaptive_nets.runtime.reading import read_json_file

VERSION = "5.1.0"  # Version of TFDS's imagenet2012, which has the same features.
SHARD_BYTES = 128 << 20
_UNFINISHED = ".building-"
_PLAN = "plan.json"
_THREADS = 4


def build(
    info: DatasetInfo,
    source: Path,
    root: Path,
    *,
    hold_out: int = 0,
    shard_bytes: int = SHARD_BYTES,
    report: Progress = lambda what, done, total: None,
    remark: Callable[[str], None] = lambda text: None,
) -> Path:
    """Builds ROOT/tfds/NAME/VERSION from a collection of image files.

    Every image is decoded once, so that a damaged one is named here and not in the middle of a
    training.

    Args:
        info: entry of the set.
        source: folder of the collection, see `image_collections.find_parts`.
        root: data root; created if missing.
        hold_out: if the collection has no validation part, every `hold_out`-th image of each class
            forms it; 0 disables this.
        shard_bytes: approximate size of a record file.
        report: called with the progress.
        remark: called with a line for the user: the classes, and what was passed over.

    Returns:
        Folder of the prepared set.

    Raises:
        AlreadyImportedError: the set is already built.
        AbsentDataError: there are no images.
        DamagedDataError: an image or archive is damaged.
        UserError: the set cannot be written, or TFDS is not installed.
    """
    tfds = import_tfds()
    target = root / "tfds" / info.stored_as / VERSION
    if target.exists():
        describe_prepared(info, target)
        raise AlreadyImportedError(
            f"{info.name} is already built in {target}; nothing was changed (delete that folder to "
            "rebuild it)"
        )
    skipped: Counter[str] = Counter()
    parts = find_parts(source, report, skipped)
    if "validation" not in parts and hold_out:
        parts = _held_out(parts["train"], hold_out)
    classes = class_labels(parts, info.class_names, title=info.title)
    if classes != info.class_names and skipped[EMPTY]:
        raise UserError(
            f"{skipped[EMPTY]} class folders in {source} have no {', '.join(SUFFIXES)} file; "
            "expected at least one image of each class, or no folder of it"
        )
    for text in _remarks(info, parts, classes, skipped):
        remark(text)
    work = root / "tfds" / f"{_UNFINISHED}{info.stored_as}"
    try:
        with lock_directory(work, flag="--data-dir"):
            _agree_on_plan(work, parts, classes, shard_bytes)
            written = _write_parts(info, parts, classes, work / VERSION, shard_bytes, report)
            _describe(tfds, info, classes, work / VERSION, written)
            report("adding up checksums", 0, 1)
            write_sums(work / VERSION)
            describe_prepared(info, work / VERSION)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(work / VERSION, target)
            shutil.rmtree(work, ignore_errors=True)
    except UserError:
        raise
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError on a full disk.
        full = "No space left" in str(error)
        why = "no space left on the disk" if full else error_summary(error)
        raise UserError(
            f"{info.name} cannot be written to {root / 'tfds'}: {why}; complete files "
            "are kept, free some space and run the same command to resume"
        ) from error
    return target


def _held_out(images: Sequence[ImageFile], every: int) -> dict[str, list[ImageFile]]:
    chosen = images[every - 1 :: every]
    if not chosen:
        raise UserError(
            f"--hold-out is {every}; expected at most the number of images, {len(images)}"
        )
    taken = set(chosen)
    return {"train": [i for i in images if i not in taken], "validation": list(chosen)}


def _agree_on_plan(
    work: Path, parts: dict[str, list[ImageFile]], classes: tuple[str, ...], shard_bytes: int
) -> None:
    """Keeps unfinished work of the same command and removes any other."""
    text = repr((parts, classes, shard_bytes)).encode("utf-8", "surrogateescape")
    plan = {"sha256": hashlib.sha256(text).hexdigest()}
    path = work / _PLAN
    try:
        agreed = read_json_file(path) == plan
    except (OSError, ValueError):
        agreed = False
    if not agreed:
        shutil.rmtree(work / VERSION, ignore_errors=True)
        write_json_atomically(path, plan)
    (work / VERSION).mkdir(exist_ok=True)


def _write_parts(
    info: DatasetInfo,
    parts: dict[str, list[ImageFile]],
    classes: tuple[str, ...],
    folder: Path,
    shard_bytes: int,
    report: Progress,
) -> dict[str, list[tuple[int, int]]]:
    """Writes all parts; returns the number of examples and bytes of every file."""
    label_of = {name: label for label, name in enumerate(classes)}
    total = sum(len(images) for images in parts.values())
    done, written = 0, {}
    for part, images in parts.items():
        count = max(1, min(len(images), -(-sum(i.size for i in images) // shard_bytes)))
        bounds = [len(images) * n // count for n in range(count + 1)]
        written[part] = []
        for number in range(count):
            name = f"{info.stored_as}-{part}.array_record-{number:05d}-of-{count:05d}"
            piece = images[bounds[number] : bounds[number + 1]]

            def report_in_shard(count: int, before: int = done) -> None:
                report("writing", before + count, total)

            if not (folder / name).exists():
                _write_shard(folder / name, piece, label_of, report_in_shard)
            done += len(piece)
            report("writing", done, total)
            written[part].append((len(piece), (folder / name).stat().st_size))
    return written


def _write_shard(path: Path, images: Sequence[ImageFile], label_of: dict[str, int], report) -> None:
    module = importlib.import_module("array_record.python.array_record_module")
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)
    # Groups of one, so that each record can be read independently.
    writer = module.ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        with warnings.catch_warnings(), ThreadPoolExecutor(_THREADS) as pool:
            # Pillow warns of what it can still read.
            warnings.simplefilter("ignore")
            labels = [label_of[image.class_name] for image in images]
            for number, example in enumerate(pool.map(_serialise, images, labels)):
                writer.write(example)
                if number % 100 == 99:
                    report(number + 1)
    finally:
        writer.close()
    os.rename(temporary, path)


def _serialise(image: ImageFile, label: int) -> bytes:
    example = importlib.import_module("tensorflow_datasets.proto").tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(_as_jpeg(image))
    feature["label"].int64_list.value.append(label)
    feature["file_name"].bytes_list.value.append(image.name.encode("utf-8", "backslashreplace"))
    # Deterministic, so that equal images give equal files.
    return example.SerializeToString(deterministic=True)


def _as_jpeg(image: ImageFile) -> bytes:
    """Decodes an image; returns RGB JPEGs unchanged and encodes others as RGB JPEGs."""
    from PIL import Image

    content = image.read()
    try:
        with Image.open(io.BytesIO(content)) as opened:
            opened.load()
            if opened.format == "JPEG" and opened.mode in ("RGB", "L"):
                return content
            buffer = io.BytesIO()
            to_mode(opened, "RGB").save(buffer, "JPEG", quality=100, subsampling=0)
            return buffer.getvalue()
    except Exception as error:  # Pillow raises many types.
        raise DamagedDataError(
            f"{image.where}: damaged image ({error_summary(error)}); put it back or move it away, "
            "and run the same command again"
        ) from error


def _remarks(
    info: DatasetInfo,
    parts: dict[str, list[ImageFile]],
    classes: tuple[str, ...],
    skipped: Counter[str],
) -> Iterator[str]:
    """Yields lines about the classes and what was passed over."""
    shown = {image.class_name for images in parts.values() for image in images}
    if classes != info.class_names:
        listed = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
        yield (
            f"{len(classes)} classes, which are not those of {info.title}; labels are their order: "
            f"{listed}"
        )
    elif len(shown) < len(classes):
        yield (
            f"{len(shown)} of {len(classes)} classes have images; labels are those of {info.title}"
        )
    if passed := passed_over(skipped):
        yield f"passed over: {passed}"


def _describe(
    tfds: Any,
    info: DatasetInfo,
    classes: tuple[str, ...],
    folder: Path,
    written: dict[str, list[tuple[int, int]]],
) -> None:
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=info.stored_as, filetype_suffix="array_record"
    )
    splits = [
        tfds.core.SplitInfo(
            name=part,
            shard_lengths=[examples for examples, _ in shards],
            num_bytes=sum(size for _, size in shards),
            filename_template=template.replace(split=part),
        )
        for part, shards in written.items()
    ]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "file_name": tfds.features.Text(),
        }
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        version=VERSION,
        filename_template=template,
        check_data=False,
        description=info.title,
        license=info.licence,
        supervised_keys=("image", "label"),
    )
