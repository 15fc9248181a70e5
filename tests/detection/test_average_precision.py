"""Average precision against a plain implementation, closed forms and mistakes."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from adaptive_nets.detection.average_precision import SIZES, average_precision, flatten_detections
from adaptive_nets.runtime.errors import UserError

THRESHOLDS = [0.5 + 0.05 * n for n in range(10)]
RANGES = {"ap": (0, 1e10), **{f"ap_{name}": bounds for name, bounds in SIZES.items()}}


def overlap(detection, truth, crowd):
    height = min(detection[2], truth[2]) - max(detection[0], truth[0])
    width = min(detection[3], truth[3]) - max(detection[1], truth[1])
    shared = max(height, 0) * max(width, 0)
    own, other = ((b[2] - b[0]) * (b[3] - b[1]) for b in (detection, truth))
    whole = own if crowd else own + other - shared
    return shared / whole if whole else 0.0


def matches_of_image(found, objects, threshold, bounds, limit):
    """(score, is true, is ignored) of each detection of a class, and the number of objects."""
    objects = [
        (box, crowd, crowd or not bounds[0] <= area <= bounds[1]) for box, crowd, area in objects
    ]
    objects.sort(key=lambda each: each[2])  # Those that count come first.
    used = [False] * len(objects)
    rows = []
    for score, box in sorted(found, key=lambda each: -each[0])[:limit]:
        best, chosen = threshold - 1e-10, None
        for n, (other, crowd, ignored) in enumerate(objects):
            if used[n] and not crowd:
                continue
            if chosen is not None and not objects[chosen][2] and ignored:
                break
            if overlap(box, other, crowd) >= best:
                best, chosen = overlap(box, other, crowd), n
        if chosen is None:
            area = (box[2] - box[0]) * (box[3] - box[1])
            rows.append((score, False, not bounds[0] <= area <= bounds[1]))
        else:
            used[chosen] = True
            rows.append((score, not objects[chosen][2], objects[chosen][2]))
    return rows, sum(not ignored for _, _, ignored in objects)


def plain_precision(detections, truth, label, threshold, bounds, limit=100):
    """Mean of the interpolated precision at 101 recalls, and the highest recall."""
    rows, total = [], 0
    for image in sorted({*detections["image_ids"], *truth["image_ids"]}):
        found = [
            (detections["scores"][n], detections["boxes"][n])
            for n in np.flatnonzero(
                (detections["image_ids"] == image) & (detections["labels"] == label)
            )
        ]
        objects = [
            (truth["boxes"][n], truth["crowd"][n], truth["area"][n])
            for n in np.flatnonzero((truth["image_ids"] == image) & (truth["labels"] == label))
        ]
        here, count = matches_of_image(found, objects, threshold, bounds, limit)
        rows += here
        total += count
    if not total:
        return np.nan, np.nan
    rows.sort(key=lambda row: -row[0])
    rows = [row for row in rows if not row[2]]
    true = np.cumsum([row[1] for row in rows]) if rows else np.zeros(0)
    precision = true / np.arange(1, len(rows) + 1)
    recall = true / total
    values = [
        max(precision[recall >= level - 1e-12], default=0.0) for level in np.linspace(0, 1, 101)
    ]
    return float(np.mean(values)), float(max(recall, default=0.0))


def nanmean(values):
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else np.nan


def draw(seed, *, images, objects, detections, classes=3, crowds=0.2, close=0.7):
    """Objects of all sizes; most detections are objects moved a little, the others anywhere."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.uniform(0, 200, (count, 2))
        side = np.exp(rng.uniform(np.log(5), np.log(200), (count, 2)))
        return np.concatenate([corner, corner + side], axis=1)

    truth = {
        "image_ids": rng.integers(0, images, objects),
        "boxes": boxes(objects),
        "labels": rng.integers(0, classes, objects),
        "crowd": rng.random(objects) < crowds,
    }
    sides = truth["boxes"][:, 2:] - truth["boxes"][:, :2]
    truth["area"] = sides.prod(axis=1) * rng.uniform(0.5, 1, objects)
    found = {
        "image_ids": rng.integers(0, images, detections),
        "boxes": boxes(detections),
        "labels": rng.integers(0, classes, detections),
        "scores": rng.permutation(detections) / (detections + 1.0),
    }
    if objects:
        near = np.flatnonzero(rng.random(detections) < close)
        source = rng.integers(0, objects, near.size)
        moved = truth["boxes"][source] + rng.normal(size=(near.size, 4)) * 0.05 * np.tile(
            sides[source], 2
        )
        found["boxes"][near] = np.concatenate(
            [np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1
        )
        found["image_ids"][near] = truth["image_ids"][source]
        found["labels"][near] = truth["labels"][source]
    return found, truth


@pytest.mark.parametrize(
    ("images", "objects", "detections", "crowds"),
    [
        (3, 12, 30, 0.2),
        (5, 30, 60, 0.0),
        (2, 8, 20, 1.0),
        (4, 10, 0, 0.2),
        (4, 0, 10, 0.2),
        (1, 1, 1, 0.0),
        (1, 1, 6, 0.0),
        (8, 20, 25, 0.5),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_equals_a_plain_implementation(seed, images, objects, detections, crowds):
    found, truth = draw(seed, images=images, objects=objects, detections=detections, crowds=crowds)
    result = average_precision(found, truth, num_classes=3)
    for name, bounds in RANGES.items():
        table = np.array(
            [
                [plain_precision(found, truth, label, t, bounds)[0] for t in THRESHOLDS]
                for label in range(3)
            ]
        )
        np.testing.assert_allclose(result[name], nanmean(table.ravel()), rtol=1e-9, err_msg=name)
        if name == "ap":
            np.testing.assert_allclose(result["ap50"], nanmean(table[:, 0]), rtol=1e-9)
            np.testing.assert_allclose(result["ap75"], nanmean(table[:, 5]), rtol=1e-9)
            np.testing.assert_allclose(result["ap50_per_class"], table[:, 0], rtol=1e-9)
            expected = [nanmean(row) for row in table]
            np.testing.assert_allclose(result["ap_per_class"], expected, rtol=1e-9)
    recalls = [
        plain_precision(found, truth, label, t, RANGES["ap"])[1]
        for label in range(3)
        for t in THRESHOLDS
    ]
    np.testing.assert_allclose(result["recall"], nanmean(recalls), rtol=1e-9)
    assert result["objects"] == int((~truth["crowd"]).sum())
    assert result["detections"] == detections


def test_the_number_of_detections_that_count():
    found, truth = draw(3, images=2, objects=12, detections=40)
    result = average_precision(found, truth, num_classes=3, max_detections=4)
    values = [plain_precision(found, truth, c, 0.5, RANGES["ap"], limit=4)[0] for c in range(3)]
    np.testing.assert_allclose(result["ap50"], nanmean(values), rtol=1e-9)


BOX = [[10, 20, 50, 80]]
ONE = {"image_ids": [5], "boxes": BOX, "labels": [0]}


def test_closed_forms():
    perfect = average_precision({**ONE, "scores": [0.3]}, ONE, num_classes=2)
    assert [perfect[name] for name in ("ap", "ap50", "recall")] == pytest.approx([1, 1, 1])
    assert np.isnan(perfect["ap_small"])
    assert perfect["ap_medium"] == pytest.approx(1)
    assert np.isnan(perfect["ap_per_class"][1])
    # A wrong detection with a higher score halves the precision at every recall.
    worse = {
        "image_ids": [5, 5], "boxes": [BOX[0], [0, 0, 5, 5]], "labels": [0, 0],
        "scores": [0.3, 0.9],
    }  # fmt: skip
    assert average_precision(worse, ONE, num_classes=1)["ap"] == pytest.approx(0.5)
    # Of two objects one is found: recalls up to 0.5, which are 51 of 101.
    two = {"image_ids": [5, 6], "boxes": BOX * 2, "labels": [0, 0]}
    half = average_precision({**ONE, "scores": [0.3]}, two, num_classes=1)
    assert half["ap"] == pytest.approx(51 / 101)
    assert half["recall"] == pytest.approx(0.5)
    # An IoU of exactly 0.6: thresholds 0.5, 0.55 and 0.6 of ten.
    shifted = {"image_ids": [5], "boxes": [[10, 20, 50, 56]], "labels": [0], "scores": [1.0]}
    assert average_precision(shifted, ONE, num_classes=1)["ap"] == pytest.approx(0.3)
    # The same box found twice is wrong once; found on another image, it is wrong.
    again = {"image_ids": [5, 5], "boxes": BOX * 2, "labels": [0, 0], "scores": [0.9, 0.8]}
    assert average_precision(again, ONE, num_classes=1)["ap"] == pytest.approx(1)
    elsewhere = {**ONE, "image_ids": [6], "scores": [1.0]}
    assert average_precision(elsewhere, ONE, num_classes=1)["ap"] == 0


def test_ignore_regions_cost_nothing_and_give_nothing():
    truth = {
        "image_ids": [5, 5], "boxes": [BOX[0], [100, 100, 200, 200]], "labels": [0, 0],
        "crowd": [False, True],
    }  # fmt: skip
    inside = [[110, 110, 130, 130], [150, 150, 160, 190]]
    found = {
        "image_ids": [5] * 3, "boxes": [*inside, BOX[0]], "labels": [0] * 3,
        "scores": [0.9, 0.8, 0.7],
    }  # fmt: skip
    assert average_precision(found, truth, num_classes=1)["ap"] == pytest.approx(1)
    del truth["crowd"]
    assert average_precision(found, truth, num_classes=1)["ap"] < 0.5


def test_nothing_at_all():
    none = {"image_ids": [], "boxes": [], "labels": [], "scores": []}
    result = average_precision(none, none, num_classes=2)
    assert all(np.isnan(result[name]) for name in ("ap", "ap50", "ap75", "ap_large", "recall"))
    assert result["images"] == result["objects"] == result["detections"] == 0
    empty = {"image_ids": np.zeros(0, int), "boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}
    assert average_precision(none, ONE, num_classes=1, image_ids=[4, 5])["ap"] == 0
    assert np.isnan(average_precision({**ONE, "scores": [1]}, empty, num_classes=1)["ap"])


def test_it_prints_nothing_and_takes_arrays_of_jax(capfd):
    import jax.numpy as jnp

    arrays = {name: jnp.asarray(value) for name, value in ONE.items()}
    found = {**arrays, "scores": jnp.ones(1)}
    assert average_precision(found, arrays, num_classes=1)["images"] == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("found", "truth", "options", "message"),
    [
        ({"scores": None}, {}, {}, "detections lack 'scores'"),
        ({"labels": [1]}, {}, {}, "labels of detections are 1 to 1; expected 0 to 0"),
        ({}, {"labels": [-1]}, {}, "labels of truth are -1 to -1; expected 0 to 0"),
        ({"labels": [0.5]}, {}, {}, "labels of detections are not integers"),
        ({"boxes": [[50, 20, 10, 80]]}, {}, {}, "box 0 of detections is .* of negative area"),
        ({}, {"boxes": [[10, 20, 50, float("nan")]]}, {}, "boxes of truth hold NaN"),
        ({"scores": [float("inf")]}, {}, {}, "scores of detections hold NaN or an infinity"),
        ({"scores": [0.5, 0.5]}, {}, {}, r"scores of detections have the shape \(2,\)"),
        ({"boxes": [10, 20, 50, 80]}, {}, {}, r"have the shape \(4,\); expected \(1, 4\)"),
        ({}, {"crowd": [True, False]}, {}, "crowd of truth has the shape"),
        ({}, {"area": [1.0, 2.0]}, {}, "area of truth has the shape"),
        ({}, {}, {"image_ids": [4]}, "detections have the image 5, which is not in image_ids"),
        ({}, {}, {"max_detections": 0}, "max_detections is 0"),
    ],
)
def test_arrays_that_do_not_fit(found, truth, options, message):
    found = {**ONE, "scores": [0.5], **found}
    found = {name: value for name, value in found.items() if value is not None}
    with pytest.raises(ValueError, match=message) as error:
        average_precision(found, {**ONE, **truth}, num_classes=1, **options)
    assert "\n" not in str(error.value)


def test_detections_of_batches_are_collected():
    boxes = np.arange(24.0).reshape(3, 2, 4)
    scores = np.array([[0.9, 0.0], [0.8, 0.7], [0.6, 0.5]])
    labels = np.array([[1, -1], [0, 2], [1, 1]])
    found = flatten_detections(
        [4, 9, 9], boxes, scores, labels, scale=[0.5, 2, 1], weight=[1, 1, 0]
    )
    assert found["image_ids"].tolist() == [4, 9, 9]
    assert found["labels"].tolist() == [1, 0, 2]
    assert found["scores"].tolist() == [0.9, 0.8, 0.7]
    np.testing.assert_array_equal(found["boxes"], [boxes[0, 0] * 2, *(boxes[1] / 2)])
    whole = flatten_detections([4, 9, 7], boxes, scores, labels)
    assert whole["image_ids"].tolist() == [4, 9, 9, 7, 7]
    none = flatten_detections([], np.zeros((0, 2, 4)), np.zeros((0, 2)), np.zeros((0, 2)))
    assert none["boxes"].shape == (0, 4)
    for arguments, message in (
        (([4], boxes, scores, labels), r"image_ids have the shape \(1,\); expected \(3,\)"),
        (([4, 9, 7], boxes[:2], scores, labels), "boxes have the shape"),
        (([4, 9, 7], boxes, scores, labels[0]), "labels have the shape"),
    ):
        with pytest.raises(ValueError, match=message):
            flatten_detections(*arguments)


def test_without_the_library_it_says_what_to_install(monkeypatch):
    for name in list(sys.modules):
        if name.startswith("pycocotools"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"pip install 'adaptive-nets\[detection\]'") as error:
        average_precision({**ONE, "scores": [0.5]}, ONE, num_classes=1)
    assert "\n" not in str(error.value)
