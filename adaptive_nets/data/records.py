"""Fast, checked reading of a prepared set's records into arrays."""

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

_BATCH = 4096  # Records per read; single reads take ten times as long.


def choose_decoder(folder: Path, info: DatasetInfo) -> Callable[[bytes], bytes] | None:
    """Chooses the decoder of a prepared set's images.

    Args:
        folder: folder of the version.
        info: entry of the set.

    Returns:
        Function from an image's bytes to its pixels; None leaves decoding to TFDS, the slowest way.

    Raises:
        DamagedDataError: features.json is missing or broken, or lacks the image or label feature.
    """
    path = folder / "features.json"
    try:
        features = read_json(path, remedy=reimport_hint(info.name, folder))["featuresDict"][
            "features"
        ]
        image, missing = features["image"], {info.label_key} - features.keys()
    except (KeyError, TypeError, AttributeError) as error:
        raise DamagedDataError(
            f"{path}: damaged, it has no feature 'image'; {reimport_hint(info.name, folder)}"
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
        tfds: module tensorflow_datasets.
        builder: TFDS builder of the set.
        info: entry of the set.
        name: name of the split.
        decode: decoder of images, see `choose_decoder`.

    Returns:
        Images uint8[N, H, W, C] and labels int32[N] in stored order.

    Raises:
        DamagedDataError: a record file is missing or damaged, or holds another number of records.
    """
    split = builder.info.splits[name]
    source = builder.as_data_source(
        name, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    parse = _make_parser(builder.info.features, info, decode)
    pixels: list[bytes] = []
    labels: list[int] = []
    start = 0
    # One shard at a time, because array_record's errors do not always name the file.
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
        except Exception as error:  # array_record, protobuf and Pillow raise many types.
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
    """Returns a function that extracts pixels and label from a record."""
    # TFDS's general decoder is slow and handles cases that these features do not have.
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
