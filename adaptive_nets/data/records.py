"""The records of a prepared set, read into arrays in seconds and checked on the way."""

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.entries import DatasetInfo
from adaptive_nets.data.errors import DamagedDataError, reimport_hint
from adaptive_nets.data.folders import error_summary, read_json
from adaptive_nets.data.splits import Split

_BATCH = 4096  # Records read at a time; one by one takes ten times as long.


def choose_decoder(folder: Path, info: DatasetInfo) -> Callable[[bytes], bytes] | None:
    """Sees how the images of a prepared set are stored.

    Args:
        folder: the version's folder.
        info: the set.

    Returns:
        What makes pixels of an image's bytes; None leaves it to TFDS, which takes longest.

    Raises:
        DamagedDataError: features.json is missing, broken, or has no image or no label of this set.
    """
    path = folder / "features.json"
    try:
        features = read_json(path, remedy=reimport_hint(info.name, folder))["featuresDict"][
            "features"
        ]
        image, missing = features["image"], {info.label_key} - features.keys()
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedDataError(
            f"{path}: damaged, no feature 'image' in it; {reimport_hint(info.name, folder)}"
        ) from error
    if missing:
        raise DamagedDataError(
            f"{path}: has no feature {info.label_key!r}, only {', '.join(sorted(features))}; "
            f"{reimport_hint(info.name, folder)}"
        )
    if "image" in image:
        return _decode_image
    if image.get("tensor", {}).get("encoding") == "bytes":
        return bytes
    return None


def read_split(
    tfds: Any, builder: Any, info: DatasetInfo, name: str, decode: Callable[[bytes], bytes] | None
) -> Split:
    """Reads one split.

    Args:
        tfds: the module.
        builder: what TFDS opened the set with.
        info: the set.
        name: the split.
        decode: see `choose_decoder`.

    Returns:
        Images uint8[N, H, W, C] and labels int32[N], in the order they are stored.

    Raises:
        DamagedDataError: a file of records is missing, damaged, or holds another number of them.
    """
    split = builder.info.splits[name]
    source = builder.as_data_source(
        name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    parse = _make_parser(builder.info.features, info, decode)
    pixels: list[bytes] = []
    labels: list[int] = []
    start = 0
    # Shard by shard, because the errors of array_record do not always name the file.
    for shard, length in zip(split.filepaths, split.shard_lengths, strict=True):
        shard = Path(shard)
        try:
            _check_length(shard, length)
            for first in range(start, start + length, _BATCH):
                last = min(first + _BATCH, start + length)
                for record in source.__getitems__(range(first, last)):
                    image, label = parse(record)
                    pixels.append(image)
                    labels.append(label)
        except Exception as error:  # array_record, protobuf and Pillow raise as they like.
            raise DamagedDataError(
                f"{shard}: damaged ({error_summary(error)}); "
                f"{reimport_hint(info.name, shard.parent)}"
            ) from error
        start += length
    images = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, *info.image_shape)
    return Split(images=images, labels=np.array(labels, np.int32))


def _check_length(shard: Path, length: int) -> None:
    module = importlib.import_module("array_record.python.array_record_module")
    if not shard.exists():
        raise ValueError("it is missing")
    reader = module.ArrayRecordReader(str(shard))
    try:
        found = reader.num_records()
    finally:
        reader.close()
    if found != length:
        raise ValueError(f"{found} records, expected {length} by dataset_info.json")


def _make_parser(
    features: Any, info: DatasetInfo, decode: Callable[[bytes], bytes] | None
) -> Callable[[bytes], tuple[bytes, int]]:
    """Makes what gets pixels and label out of a record."""
    # TFDS's own decoding spends most of its time on cases that these features are not.
    example = importlib.import_module("tensorflow_datasets.proto").tf_example_pb2.Example
    size = math.prod(info.image_shape)

    def parse(record: bytes) -> tuple[bytes, int]:
        if decode is None:
            values = features.deserialize_example_np(record)
            image = np.asarray(values["image"], np.uint8).tobytes()
            label = int(values[info.label_key])
        else:
            fields = example.FromString(record).features.feature
            image = decode(fields["image"].bytes_list.value[0])
            label = fields[info.label_key].int64_list.value[0]
        if len(image) != size:
            raise ValueError(f"an image of {len(image)} bytes, expected {size}")
        if not 0 <= label < info.num_classes:
            raise ValueError(f"label {label}, expected 0 to {info.num_classes - 1}")
        return image, label

    return parse


def _decode_image(content: bytes) -> bytes:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return image.tobytes()
