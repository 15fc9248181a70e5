"""Photographs from folders and archives to batches: nothing lost, nothing twice, always named."""

from __future__ import annotations

import dataclasses
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from photographs import CLASSES, EACH, photograph
from PIL import Image

from adaptive_nets.data import build_dataset, load, survey, verify
from adaptive_nets.data.catalogue import lookup
from adaptive_nets.data.errors import DamagedDataError
from adaptive_nets.data.image_collections import imagenet_classes
from adaptive_nets.data.image_records import build
from adaptive_nets.data.image_transforms import (
    central_crop_box,
    decode_for_evaluation,
    decode_for_training,
    random_crop_box,
)
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.runtime.errors import UserError


def small(split, size=16):
    return dataclasses.replace(split, image_shape=(size, size, 3))


def read(split, *, rows=None, first=0, batches=5, size=4, workers=0, seed=3, flip=True):
    rows = np.arange(size) if rows is None else rows
    return list(
        stream(
            small(split), rows=rows, batch_size=size, first=first, batches=batches,
            options=StreamOptions(workers, 2, 2), seed=seed, flip=flip,
        )
    )  # fmt: skip


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_a_folder_per_class_becomes_a_set_that_tfds_opens(built):
    data = load("imagenet", root=built)
    assert (data.count("train"), data.count("test")) == (21, 6)
    assert (data.num_classes, data.complete) == (1000, False)
    assert data.class_names[:3] == CLASSES
    assert len(data.streams["train"].paths) > 1
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(data.location)
    assert {k: v.num_examples for k, v in builder.info.splits.items()} == {
        "train": 21,
        "validation": 6,
    }
    first = builder.as_data_source("validation")[0]
    assert (first["label"], first["image"].shape) == (0, (45, 60, 3))
    (finding,) = [f for f in survey(built) if f.name == "imagenet"]
    assert finding.state == "ok"
    assert "21 train + 6 test of 1000 classes" in finding.message
    assert "files match the checksums of the build" in verify("imagenet", built)[0].message


def test_archives_give_the_same_records_as_folders(built, folders, tmp_path):
    """ImageNet's own form: a tar of a tar for each class, and a flat one with a list of labels."""
    with tarfile.open(tmp_path / "ILSVRC2012_img_train.tar", "w") as outer:
        for name in CLASSES:
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for path in sorted((folders / "train" / name).iterdir(), reverse=True):
                    tar.add(path, path.name)
            member = tarfile.TarInfo(f"{name}.tar")
            member.size = len(inner.getvalue())
            outer.addfile(member, io.BytesIO(inner.getvalue()))
    labels = []
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as tar:
        for path in sorted((folders / "val").rglob("*.JPEG"), reverse=True):
            tar.add(path, path.name)
            labels.append(f"{path.name} {path.parent.name}\n")
    root = tmp_path / "root"
    with pytest.raises(UserError, match=r"no file of labels; expected labels\.csv"):
        build_dataset("imagenet", tmp_path, root)
    (tmp_path / "val_labels.txt").write_text("".join(labels))
    build(lookup("imagenet"), tmp_path, root, shard_bytes=5000)
    assert load("imagenet", root=root).fingerprint == load("imagenet", root=built).fingerprint


def test_a_build_that_was_stopped_goes_on(built, folders, tmp_path):
    info, seen = lookup("imagenet"), []

    class StopError(Exception):
        pass

    def stop(what, done, total):
        if what == "writing" and done >= 12:
            raise StopError

    with pytest.raises(StopError):
        build(info, folders, tmp_path, shard_bytes=5000, report=stop)
    assert load_error(tmp_path).startswith("imagenet: no prepared set")
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.array_record-*")}
    assert kept
    folder = build(info, folders, tmp_path, shard_bytes=5000, report=lambda *a: seen.append(a))
    assert {(folder / p.name).stat().st_mtime_ns for p in kept} == set(kept.values())
    assert load("imagenet", root=tmp_path).fingerprint == load("imagenet", root=built).fingerprint
    with pytest.raises(UserError, match="is already built"):
        build_dataset("imagenet", folders, tmp_path)


def load_error(root):
    with pytest.raises(UserError) as error:
        load("imagenet", root=root)
    return str(error.value)


def test_other_classes_and_images_of_other_kinds(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "in" / name).mkdir(parents=True)
        for number in range(4):
            content = photograph(number, kind="PNG" if number == 1 else "JPEG")
            (tmp_path / "in" / name / f"{number}.png").write_bytes(content)
        grey = photograph(5, mode="L")
        (tmp_path / "in" / name / "grey.jpg").write_bytes(grey)
        (tmp_path / "in" / name / "inks.jpg").write_bytes(photograph(6, mode="CMYK"))
    build_dataset("imagenet", tmp_path / "in", tmp_path / "root", hold_out=3)
    data = load("imagenet", root=tmp_path / "root")
    assert data.class_names == ("cat", "dog")
    assert (data.count("train"), data.count("test")) == (8, 4)
    (batch,) = read(data.streams["train"], size=8, batches=1)
    assert batch["image"].shape == (8, 16, 16, 3)
    assert sorted(batch["label"]) == [0] * 4 + [1] * 4


def test_a_damaged_photograph_is_named(tmp_path):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "cat" / "torn.jpg").write_bytes(photograph(1)[:90])
    with pytest.raises(DamagedDataError, match=r"cat/torn\.jpg: damaged image"):
        build_dataset("imagenet", tmp_path / "in", tmp_path / "root")
    with pytest.raises(UserError, match="is not built but imported"):
        build_dataset("mnist", tmp_path / "in", tmp_path / "root")


def test_every_example_once_an_epoch_in_an_order_of_seed_and_epoch(built):
    split = load("imagenet", root=built).streams["train"]

    def labels(**options):
        return [tuple(np.sort(b["label"])) for b in read(split, size=21, **options)]

    assert labels(batches=2) == [tuple(np.repeat([0, 1, 2], EACH))] * 2
    one, two = read(split, size=21, batches=2, flip=False)
    assert (one["label"] != two["label"]).any()
    # Five batches of four an epoch; the 21st example is left out, another one each time.
    seen = np.concatenate([b["label"] for b in read(split, batches=5)])
    assert np.bincount(seen).min() >= EACH - 1
    other = np.concatenate([b["label"] for b in read(split, batches=5, seed=4)])
    assert (seen != other).any()


def test_neither_processes_nor_where_it_goes_on_show_in_a_batch(built):
    split = load("imagenet", root=built).streams["train"]
    whole = read(split, batches=9)
    for rows in (np.arange(2), np.arange(2, 4), np.array([1, 3])):
        share = [{name: part[rows] for name, part in batch.items()} for batch in whole]
        assert_same(read(split, rows=rows, batches=9), share)
    assert_same(read(split, first=6, batches=3), whole[6:])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_worker_processes_do_not_show(built, workers):
    split = load("imagenet", root=built).streams["train"]
    assert_same(read(split, batches=7, workers=workers), read(split, batches=7))


def test_evaluation_reads_in_stored_order_and_pads_the_last_batch(built):
    split = load("imagenet", root=built).streams["test"]
    batches = read(split, batches=2, seed=None)
    assert np.concatenate([b["label"] for b in batches]).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert np.concatenate([b["weight"] for b in batches]).tolist() == [1] * 6 + [0] * 2


def test_a_missing_or_damaged_file_is_named(built, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(built, root)
    split = load("imagenet", root=root).streams["train"]
    content = Path(split.paths[1]).read_bytes()
    at = content.index(b"\xff\xd8\xff") + 40  # In the first image.
    with open(split.paths[1], "r+b") as file:
        file.seek(at)
        file.write(bytes(b ^ 0xFF for b in content[at : at + 20]))
    # Its end, which counts the records, is whole; the record is not.
    opened = load("imagenet", root=root).streams["train"]
    with pytest.raises(DamagedDataError) as error:
        read(opened, batches=5)
    assert str(error.value).startswith(f"{split.paths[1]}: record ")
    with open(split.paths[1], "r+b") as file:
        file.truncate(len(content) // 2)
    assert load_error(root).startswith(f"{split.paths[1]}: damaged")
    os.unlink(split.paths[1])
    assert load_error(root).startswith(f"{split.paths[1]} is missing")
    with pytest.raises(DamagedDataError, match="the file is missing") as error:
        read(opened, batches=5)
    assert str(error.value).startswith(split.paths[1])


def test_crops_are_what_the_recipe_says(rng):
    boxes = np.array([random_crop_box(100, 80, rng) for _ in range(4000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= 100).all()
    assert (boxes[:, 3] <= 80).all()
    areas, ratios = widths * heights / 8000, widths / heights
    assert 0.07 < areas.min() < 0.1
    assert areas.max() > 0.9
    assert ratios.min() > 0.7
    assert ratios.max() < 1.4
    small = np.array([random_crop_box(100, 80, rng, (0.05, 0.2)) for _ in range(2000)])
    areas = (small[:, 2] - small[:, 0]) * (small[:, 3] - small[:, 1]) / 8000
    assert 0.04 < areas.min() < 0.07
    assert 0.17 < areas.max() < 0.22
    # A strip has no part of an allowed ratio with that area: its largest central part it is.
    assert random_crop_box(400, 10, rng) == (193, 0, 206, 10)
    assert central_crop_box(100, 80) == (15.0, 5.0, 85.0, 75.0)


def test_decoding_is_pillows_resize_of_the_box(rng):
    content = photograph(3, 90, 70)
    with Image.open(io.BytesIO(content)) as image:
        box = (14.375, 4.375, 75.625, 65.625)
        expected = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR, box=box))
    np.testing.assert_array_equal(decode_for_evaluation(content, size=24), expected)
    options = [
        decode_for_training(content, size=24, flip=flip, generator=np.random.default_rng(seed))
        for seed in range(8)
        for flip in (False, True)
    ]
    mirrored = [
        (plain == other[:, ::-1]).all()
        for plain, other in zip(options[::2], options[1::2], strict=True)
    ]
    same = [(a == b).all() for a, b in zip(options[::2], options[1::2], strict=True)]
    assert any(mirrored)
    assert any(same)
    assert all(a or b for a, b in zip(mirrored, same, strict=True))


def test_the_classes_are_imagenets():
    names = imagenet_classes()
    assert len(names) == 1000
    assert names[0] == ("n01440764", "tench")
    assert names[-1][0] == "n15075141"
    assert [wordnet for wordnet, _ in names] == sorted(wordnet for wordnet, _ in names)
