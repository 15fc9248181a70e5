"""A small set of photographs on disk, laid out as ImageNet is."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptive_nets.data import load
from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.image_records import build

CLASSES = ("n01440764", "n01443537", "n01484850")
EACH = 7


def photograph(seed, width=60, height=45, kind="JPEG", mode="RGB"):
    """An image whose mean colour tells which one it is."""
    rng = np.random.default_rng(seed)
    pixels = np.clip(rng.normal(40 + 8 * seed, 3, (height, width, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def images_of(part):
    base = 0 if part == "train" else EACH * len(CLASSES)
    for label, name in enumerate(CLASSES):
        for number in range(EACH if part == "train" else 2):
            seed = base + EACH * label + number
            yield name, f"{name}_{number}.JPEG", photograph(seed % 25)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("folders")
    for part in ("train", "val"):
        for name, file, content in images_of(part):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            (root / part / name / file).write_bytes(content)
    return root


@pytest.fixture(scope="session")
def built(folders, tmp_path_factory):
    """A data root with the set in five and one files of records."""
    root = tmp_path_factory.mktemp("root")
    build(lookup("imagenet"), folders, root, shard_bytes=5000)
    return root


def small_set(root: Path, size: int = 16):
    """The set, brought to a small size."""
    dataset = load("imagenet", root=root)
    streams = {
        name: dataclasses.replace(split, image_shape=(size, size, 3))
        for name, split in dataset.streams.items()
    }
    return dataclasses.replace(dataset, streams=streams)
