"""Batches of photographs with boxes: resized, mirrored, padded, in an order of seed and step."""

from __future__ import annotations

import pickle
from collections import Counter

import jax
import numpy as np
import pytest
from boxes_on_disk import BOXES, SIZES, file_name, pixels_of, write_coco

from adaptive_nets.data.boxes import (
    BoxSource,
    Resize,
    bucket_shapes,
    detection_batches,
    detection_dataset,
    flip_rows,
    load_boxes,
)
from adaptive_nets.data.boxes.buckets import (
    choose_bucket,
    evaluation_batches,
    evaluation_example,
    training_example,
)
from adaptive_nets.data.boxes.resizing import flip_boxes, resize_image, scale_boxes
from adaptive_nets.data.errors import AbsentDataError, DamagedDataError
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.runtime.errors import UserError

AS_THEY_ARE = Resize(40, 64)


@pytest.fixture
def found(root):
    write_coco(root / "coco")
    return load_boxes("coco", root=root)


@pytest.fixture
def images(found):
    return found.split("val")


def test_sizes_keep_the_aspect():
    paper = Resize(600, 1000)
    assert paper.size(480, 640) == (600, 800)
    assert paper.size(640, 480) == (800, 600)
    assert paper.size(400, 1000) == (400, 1000)  # The long side limits.
    assert paper.size(333, 1000) == (333, 1000)
    assert paper.scale(300, 1000) == 1.0
    assert Resize(240, 320).size(480, 640) == (240, 320)
    assert Resize(5, 10).size(1, 1000) == (1, 10)
    for short, long in ((0, 10), (11, 10)):
        with pytest.raises(UserError, match=f"short side is {short} and long side 10"):
            Resize(short, long)


def test_every_photograph_fits_a_bucket():
    rng = np.random.default_rng(3)
    for stride, aspects in ((1, ()), (32, ()), (16, (4 / 3, 1.0)), (32, (4 / 3, 3.0))):
        resize = Resize(600, 1000)
        shapes = bucket_shapes(resize, stride=stride, aspects=aspects)
        assert all(side % stride == 0 for shape in shapes for side in shape)
        assert len(set(shapes)) == len(shapes)
        assert {shape[::-1] for shape in shapes} == set(shapes)
        for height, width in [*rng.integers(1, 3000, (300, 2)), (480, 640), (1, 1), (9, 3000)]:
            size = resize.size(int(height), int(width))
            shape = shapes[choose_bucket(size, shapes)]
            assert size[0] <= shape[0]
            assert size[1] <= shape[1]
    assert bucket_shapes(Resize(600, 1000), stride=32) == [(608, 1024), (1024, 608)]
    assert bucket_shapes(Resize(240, 320), stride=16) == [(240, 320), (320, 240)]
    assert bucket_shapes(Resize(100, 100), stride=32) == [(128, 128)]
    assert bucket_shapes(Resize(600, 1000), stride=32, aspects=(4 / 3,))[0] == (608, 800)
    with pytest.raises(ValueError, match="fits in one of"):
        choose_bucket((65, 10), [(64, 64)])
    for stride, aspects, message in ((0, (), "stride is 0"), (1, (0.5,), "aspect of a bucket is")):
        with pytest.raises(UserError, match=message):
            bucket_shapes(Resize(2, 3), stride=stride, aspects=aspects)


@pytest.mark.parametrize(
    ("counts", "batch_size"), [((7,), 3), ((5, 3), 2), ((1, 9), 4), ((6, 4, 2), 5), ((1,), 2)]
)
def test_images_of_training_are_seen_equally_often(counts, batch_size):
    """After a whole round, every image was seen as often as any other."""
    total = sum(counts)
    seen: Counter[tuple[int, int]] = Counter()
    buckets = []
    for step in range(total):
        rows = [
            training_example(counts, seed=5, step=step, row=row, batch_size=batch_size)
            for row in range(batch_size)
        ]
        assert len({bucket for bucket, _, _ in rows}) == 1  # One shape.
        buckets.append(rows[0][0])
        seen.update((bucket, place) for bucket, place, _ in rows)
    assert len(seen) == total
    assert set(seen.values()) == {batch_size}
    # The buckets take turns: after any number of steps each has its share.
    for bucket, count in enumerate(counts):
        share = np.cumsum(np.array(buckets) == bucket) / np.arange(1, total + 1)
        assert np.all(np.abs(share - count / total) * np.arange(1, total + 1) <= 1)


def test_the_order_depends_on_seed_and_step_alone():
    def order(seed):
        return [
            training_example((8, 5), seed=seed, step=step, row=row, batch_size=4)
            for step in (20, 3, 11)
            for row in range(4)
        ]

    assert order(1) == order(1)
    assert order(1) != order(2)
    one_pass = [training_example((64,), seed=1, step=s, row=0, batch_size=1)[1] for s in range(128)]
    assert sorted(one_pass[:64]) == sorted(one_pass[64:]) == list(range(64))
    assert one_pass[:64] != one_pass[64:]


def test_evaluation_has_every_image_once():
    for counts, batch_size in (((7,), 3), ((5, 3), 2), ((1, 4), 4), ((3,), 8)):
        batches = evaluation_batches(counts, batch_size)
        seen = [
            (bucket, place)
            for step in range(batches)
            for row in range(batch_size)
            for bucket, place, real in [
                evaluation_example(counts, step=step, row=row, batch_size=batch_size)
            ]
            if real
        ]
        assert seen == [(b, place) for b, count in enumerate(counts) for place in range(count)]
        assert not evaluation_example(counts, step=batches, row=0, batch_size=batch_size)[2]


def test_a_batch_without_resizing_is_exact(images):
    source = BoxSource(images, AS_THEY_ARE, stride=8)
    assert source.shapes == ((40, 64), (64, 40))
    batches = list(detection_batches(source, batch_size=2))
    assert len(batches) == source.num_batches(2) == 3
    shapes = {
        "image": ((2, 40, 64, 3), np.uint8), "size": ((2, 2), np.int32),
        "boxes": ((2, 2, 4), np.float32), "labels": ((2, 2), np.int32), "crowd": ((2, 2), bool),
        "image_id": ((2,), np.int32), "scale": ((2,), np.float32), "weight": ((2,), np.float32),
    }  # fmt: skip
    assert {name: (a.shape, a.dtype) for name, a in batches[0].items()} == shapes
    ids = [int(n) for b in batches for n, w in zip(b["image_id"], b["weight"], strict=True) if w]
    assert ids == [7, 12, 15, 20, 9]  # Landscape in order, then portrait.
    assert batches[2]["weight"].tolist() == [1, 0]
    assert batches[2]["image"].shape == (2, 64, 40, 3)
    first = {name: array[0] for name, array in batches[0].items()}
    assert (first["size"].tolist(), first["scale"]) == ([40, 60], 1)
    np.testing.assert_array_equal(first["image"][:, :60], pixels_of(7))
    assert not first["image"][:, 60:].any()
    np.testing.assert_array_equal(first["boxes"], [[4, 10.5, 34.25, 30.5], [0, 0, 40, 60]])
    portrait = {name: array[0] for name, array in batches[2].items()}
    assert portrait["labels"].tolist() == [1, -1]
    assert portrait["crowd"].tolist() == [True, False]
    assert not portrait["boxes"][1].any()


def test_resized_boxes_stay_on_their_pixels(images):
    """A bright rectangle is found where its box says, also mirrored."""
    rng = np.random.default_rng(0)
    for resize in (Resize(20, 33), Resize(80, 200)):
        for _ in range(5):
            height, width = rng.integers(40, 70, 2)
            y1, x1 = rng.integers(0, 15, 2)
            y2, x2 = rng.integers(20, 40, 2)
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[y1:y2, x1:x2] = 255
            size = resize.size(height, width)
            scale = resize.scale(height, width)
            assert max(size) <= resize.long
            assert min(size) <= resize.short
            boxes = scale_boxes(np.array([[y1, x1, y2, x2]], float), scale, size)
            resized = resize_image(pixels, size)
            for image, (box,) in (
                (resized, boxes),
                (resized[:, ::-1], flip_boxes(boxes, size[1])),
            ):
                ys, xs = np.nonzero(image[..., 0] > 127)
                edges = [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
                np.testing.assert_allclose(box, edges, atol=1.01)
    source = BoxSource(images, Resize(20, 32), stride=4)
    row = source.read(0, None)
    assert row["scale"] == np.float32(0.5)
    np.testing.assert_array_equal(row["boxes"], [[2, 5.25, 17.125, 15.25], [0, 0, 20, 30]])
    assert row["size"].tolist() == [20, 30]


def test_boxes_are_clipped_to_the_rounded_size():
    boxes = scale_boxes(np.array([[0, 0, 10, 3]]), 0.55, (5, 2))
    np.testing.assert_allclose(boxes, [[0, 0, 5, 1.65]], rtol=1e-6)
    assert scale_boxes(np.zeros((0, 4)), 2.0, (5, 2)).shape == (0, 4)
    assert flip_boxes(np.zeros((0, 4)), 5).shape == (0, 4)


def test_training_mirrors_images_with_their_boxes(images):
    source = BoxSource(images, AS_THEY_ARE, stride=8, flip=True, keep_empty=False)
    assert [image.number for image in source.images] == [7, 12]  # Neither crowds alone nor empty.
    flips = []
    for batch in detection_batches(source, batch_size=2, seed=1, batches=20):
        assert "weight" not in batch
        for number, image, boxes, labels in zip(
            batch["image_id"], batch["image"], batch["boxes"], batch["labels"], strict=True
        ):
            width = SIZES[int(number)][1]
            mirrored = bool(image[0, 0, 0])  # The first column is dark.
            flips.append(mirrored)
            expected = pixels_of(int(number))
            np.testing.assert_array_equal(
                image[:, :width][: len(expected)], expected[:, ::-1] if mirrored else expected
            )
            assert not image[:, width:].any()
            x, w = next((row[2], row[4]) for row in BOXES if row[0] == number)
            left = width - x - w if mirrored else x
            np.testing.assert_allclose(boxes[0, [1, 3]], [left, left + w])
            assert not boxes[labels < 0].any()
    assert 8 < sum(flips) < 32
    assert not any(
        image[0, 0, 0]
        for batch in detection_batches(source, batch_size=2)
        for image in batch["image"]
    )  # Evaluation mirrors nothing.


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_resuming_needs_the_step_only(images):
    source = BoxSource(images, AS_THEY_ARE, stride=8, flip=True)
    options = StreamOptions(threads=3, prefetch=2)
    whole = list(detection_batches(source, batch_size=2, seed=4, batches=7, options=options))
    rest = list(detection_batches(source, batch_size=2, seed=4, first=4, batches=3))
    assert_equal_batches(whole[4:], rest)
    # Another process reads its own rows of the same batches.
    second = list(detection_batches(source, batch_size=2, seed=4, batches=7, rows=np.array([1])))
    assert_equal_batches([{n: a[1:] for n, a in batch.items()} for batch in whole], second)
    assert len(list(detection_batches(source, batch_size=2, seed=4))) == 3  # One pass.
    assert list(detection_batches(source, batch_size=2, first=3)) == []
    with pytest.raises(UserError, match="batch size is 0"):
        list(detection_batches(source, batch_size=0))


@pytest.mark.slow
def test_worker_processes_read_the_same(images):
    source = BoxSource(images, AS_THEY_ARE, stride=8, flip=True)
    workers = StreamOptions(workers=2, threads=2, prefetch=2)
    for arguments in ({}, {"seed": 4, "batches": 7}):
        assert_equal_batches(
            list(detection_batches(source, batch_size=2, **arguments)),
            list(detection_batches(source, batch_size=2, options=workers, **arguments)),
        )


def test_a_source_is_small_and_changeable(images):
    source = pickle.loads(pickle.dumps(BoxSource(images, AS_THEY_ARE, stride=8, max_boxes=5)))
    first = source.first(1)
    assert (first.size, first.max_boxes, first.shapes) == (1, 5, ((40, 64),))
    assert first.read(0, None)["boxes"].shape == (5, 4)
    assert source.first(99).size == 5


def test_images_that_do_not_fit(images, root):
    for options, message in (
        ({"stride": 48}, r"000000000007.png has 60 x 40 pixels after resizing \(60 x 40 before\); "
         "expected at least 48, the stride"),
        ({"max_boxes": 1}, "max_boxes is 1; expected at least 2, the boxes of"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message) as error:
            BoxSource(images, AS_THEY_ARE, **options)
        assert "\n" not in str(error.value)
    with pytest.raises(AbsentDataError, match="none of them usable; expected images with an obj"):
        BoxSource(images[1:2], AS_THEY_ARE, stride=8, keep_empty=False)
    path = root / "coco" / "val2017" / file_name(12)
    path.write_bytes(path.read_bytes()[:-30])
    source = BoxSource(images, AS_THEY_ARE, stride=8)
    with pytest.raises(DamagedDataError, match="it has changed") as error:
        list(detection_batches(source, batch_size=2))
    assert str(path) in str(error.value)
    with pytest.raises(UserError, match="padded to 2 shapes"):
        BoxSource(images, AS_THEY_ARE, stride=8).in_memory()


def test_a_set_in_memory_is_mirrored_on_the_device(images):
    landscape = [image for image in images if image.height < image.width]
    split = BoxSource(landscape, AS_THEY_ARE, stride=8).in_memory()
    assert len(split) == 3
    rows = {name: np.asarray(array) for name, array in split.arrays.items()}
    seen = set()
    flip = jax.jit(flip_rows)
    for seed in range(12):
        out = flip(jax.random.key(seed), {**rows, "image": rows["image"].astype(np.float32)})
        assert out.keys() == rows.keys()
        for n in range(3):
            width = int(rows["size"][n, 1])
            image = np.asarray(out["image"][n])
            mirrored = not np.array_equal(image, rows["image"][n])
            seen.add((n, mirrored))
            if mirrored:
                expected = rows["image"][n].copy()
                expected[:, :width] = expected[:, :width][:, ::-1]
                np.testing.assert_array_equal(image, expected)
                boxes = flip_boxes(rows["boxes"][n], width)
                boxes[rows["labels"][n] < 0] = 0
                np.testing.assert_array_equal(out["boxes"][n], boxes)
            else:
                np.testing.assert_array_equal(out["boxes"][n], rows["boxes"][n])
    assert len(seen) == 6


def test_a_data_set_of_the_training_loop(found):
    data = detection_dataset(found, AS_THEY_ARE, train="val", test="val", stride=8)
    assert (data.count("train"), data.count("test")) == (2, 5)
    assert data.fingerprint == found.fingerprint
    assert (data.num_classes, data.complete) == (3, False)
    assert data.streams["train"].flip
    assert not data.streams["test"].flip
    with pytest.raises(AbsentDataError, match="split 'train' of coco"):
        detection_dataset(found, AS_THEY_ARE)
    held = detection_dataset(
        found, Resize(40, 40), train=["val"], test="val", stride=8, in_memory=True
    )
    assert not held.streams
    assert held.train is not None
    assert held.train.arrays["boxes"].shape == (2, 2, 4)


@pytest.mark.data("bccd")
def test_bccd_in_memory(official_root):
    found = load_boxes("bccd", root=official_root("bccd"))
    source = BoxSource(found.split("test"), Resize(240, 320), stride=16)
    assert source.shapes == ((240, 320),)
    split = source.first(8).in_memory()
    assert split.images.shape == (8, 240, 320, 3)
    assert (split.arrays["scale"] == 0.5).all()
    assert detection_dataset(found, Resize(240, 320), test="test").complete
