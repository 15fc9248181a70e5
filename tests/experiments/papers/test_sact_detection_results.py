"""Results of detectors: measures, files, drawings, tables, and runs on photographs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from classifier_files import classifier_files
from detectors import SMALL, small_detector, variables_of
from numpy_boxes import average_precision50
from records_for_tests import write_run

import adaptive_nets as an
from adaptive_nets.data.boxes import ground_truth
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.detection import feature_cost
from adaptive_nets.detection.stored import StoredDetector, load_detector, save_detector
from adaptive_nets.models.normalisation import IMAGENET_STATISTICS
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from experiments.papers.sact_detection import experiment, tables
from experiments.papers.sact_detection.figures import (
    detections_picture,
    drawn_pictures,
    figures,
)
from experiments.papers.sact_detection.generated import CLASS_NAMES
from experiments.papers.sact_detection.measures import (
    Measured,
    measure,
    metrics_of,
    speed_metrics,
    without_heads,
)
from experiments.report.box_drawings import TRUTH, class_colour, draw_boxes
from experiments.report.charts import Figure, Missing
from experiments.suite.execution import execute
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.registry import find_experiment

ROOT = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent"))
PLAIN_ID, SACT_ID = "sact.coco.bccd-resnet32", "sact.coco.bccd-resnet32-sact"
NORMALISATION = IMAGENET_STATISTICS.to_input_normalisation()
READING = StreamOptions(0, 1, 1)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A plain network in a file, and its variables."""
    return classifier_files(tmp_path_factory.mktemp("classifier"))


def smoke(name: str, **groups):
    config = find_experiment(name).presets["smoke"].config
    return dataclasses.replace(config, **groups)


def small_stored(name: str) -> StoredDetector:
    """A small detector of random weights for two classes; green counts as blue."""
    variables = jax.device_get(variables_of(name))
    return StoredDetector(
        small_detector(name), variables, NORMALISATION, ("red", "blue"),
        smoke(PLAIN_ID).images.resize, 8,
    )  # fmt: skip


@pytest.fixture(scope="module")
def source():
    """The generated test pictures with two classes."""
    found = smoke(PLAIN_ID).read_data(root=None).streams["test"]
    images = [dataclasses.replace(im, labels=np.minimum(im.labels, 1)) for im in found.images]
    return found.replace(images=images)


@pytest.fixture(scope="module")
def measured(source):
    stored = small_stored("resnetv1_20_sact_cifar10")
    config = dataclasses.replace(smoke(SACT_ID).detector, score_threshold=0.01, limit=10)
    return stored, measure(
        stored, source.first(5), config, batch_size=3, options=READING,
        progress=SilentProgress(), title="t",
    )  # fmt: skip


def test_measures_equal_those_of_single_images(measured, source):
    stored, found = measured
    detector = stored.detector
    apply = jax.jit(lambda v, b: detector.apply(v, b))
    guesses, truth = [], []
    for i in range(5):
        row = source.read(i, None)
        batch = {"image": stored.normalise(row["image"][None]), "size": row["size"][None]}
        output = apply(stored.variables, batch)
        boxes = an.detection.detections(output, score_threshold=0.01, limit=10)
        valid = np.asarray(boxes.valid[0])
        guesses.append(tuple(np.asarray(a[0])[valid]
                             for a in (boxes.boxes, boxes.labels, boxes.scores)))  # fmt: skip
        real = row["labels"] >= 0
        truth.append((row["boxes"][real], row["labels"][real]))
        cost = feature_cost(detector, output)
        assert (found.flops[i], found.plain_flops[i]) == (cost.flops[0], cost.plain_flops[0])
        ponder = np.asarray(an.detection.image_ponder_map(output))[0]
        inside = np.zeros(ponder.shape, bool)
        for y1, x1, y2, x2 in row["boxes"][real].astype(int):
            inside[y1:y2, x1:x2] = True
        assert found.inside[i] == pytest.approx(ponder[inside].mean(), rel=1e-4)
        assert found.outside[i] == pytest.approx(ponder[~inside].mean(), rel=1e-4)
        assert found.ponder[i] == pytest.approx(ponder.mean(), rel=1e-4)
    assert found.precision["images"] == 5
    assert found.precision["objects"] == len(ground_truth(source.images[:5])["labels"])
    assert found.precision["detections"] == sum(len(boxes) for boxes, _, _ in guesses)
    # At 101 recalls and at all of them.
    assert found.precision["ap50"] == pytest.approx(
        average_precision50(truth, guesses, 2), abs=0.05
    )
    assert found.arrays["pictures"].shape == (4, 48, 64, 3)
    assert found.arrays["ponder"].shape == (4, 48, 64)
    assert found.arrays["found.boxes"].shape == (4, 10, 4)


def test_the_reference_of_flops_may_be_another_backbone(measured, source):
    stored, _ = measured
    config = dataclasses.replace(smoke(SACT_ID).detector, reference="resnet32_cifar10")
    reference = experiment.reference_detector(stored.detector, config)
    assert reference is not None
    assert reference.backbone == "resnet32_cifar10"
    assert experiment.reference_detector(stored.detector, smoke(SACT_ID).detector) is None
    absent = dataclasses.replace(config, reference="resnet1000")
    with pytest.raises(UserError, match="resnet1000"):
        experiment.reference_detector(stored.detector, absent)


def test_ponder_metrics_are_means_of_ratios_over_images_with_boxes():
    nan = np.nan
    values = {
        "ap": 0.5, "ap50": 0.75, "ap75": 0.25, "ap_small": nan, "ap_medium": 0.5, "ap_large": 0.5,
        "recall": 0.6, "objects": 9, "detections": 12, "ap_per_class": np.array([0.4, 0.6]),
        "ap50_per_class": np.array([0.7, nan]),
    }  # fmt: skip
    found = Measured(
        values, np.array([50, 100, 60]), np.array([100, 100, 100]), np.array([3.0, 2.0, nan]),
        np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.0, 4.0]), {},
    )  # fmt: skip
    metrics = metrics_of(found, ("red", "blue"))
    ratio = np.array([3.0, 1.0])
    assert metrics["ponder_ratio"].value == pytest.approx(2)
    assert metrics["ponder_ratio_error"].value == pytest.approx(ratio.std(ddof=1) / np.sqrt(2))
    assert metrics["ponder_ratio"].count == 2
    assert metrics["ponder_higher"].value == 50
    assert metrics["ponder"].value == pytest.approx(2.5)
    assert metrics["flops_share"].value == pytest.approx(70)
    assert metrics["flops_share_std"].value == pytest.approx(np.std([50, 100, 60]))
    assert (metrics["ap"].value, metrics["ap50.red"].value) == (50, 70)
    assert metrics["ap50.blue"].value is None
    assert "no such object" in metrics["ap_small"].note
    assert metrics["detections"].value == 4
    fixed = dataclasses.replace(found, inside=np.zeros(0), outside=np.zeros(0))
    assert not any(name.startswith("ponder") for name in metrics_of(fixed, ("red", "blue")))
    many = tuple(map(str, range(80)))
    assert not any(name.startswith("ap50.") for name in metrics_of(found, many))


def test_the_plain_form_has_all_variables_but_the_heads():
    variables = jax.device_get(variables_of("resnetv1_20_sact_cifar10"))
    plain = without_heads(variables)
    assert plain["params"].keys() == variables["params"].keys()
    removed = variables["params"]["network"].keys() - plain["params"]["network"].keys()
    assert removed
    assert all(name.endswith("_sact_head") for name in removed)
    source = smoke(PLAIN_ID).read_data(root=None).streams["test"]
    stored = small_stored("resnet20_cifar10")
    assert speed_metrics(stored, source, batch_size=2, batches=0) == {}
    metrics = speed_metrics(stored, source, batch_size=2, batches=1)
    assert metrics.keys() == {"speed.dense"}
    assert (metrics["speed.dense"].value or 0) > 0


# -- stored detectors


def test_a_stored_detector_is_the_same_after_loading(tmp_path):
    stored = small_stored("resnetv1_20_sact_cifar10")
    save_detector(tmp_path / "detector.safetensors", stored, note={"overrides": SMALL})
    for place in (tmp_path, tmp_path / "detector.safetensors"):
        again = load_detector(place)
        assert again.detector.settings == stored.detector.settings
        assert (again.class_names, again.resize, again.multiple) == (
            stored.class_names, stored.resize, stored.multiple,
        )  # fmt: skip
        jax.tree.map(np.testing.assert_array_equal, again.variables, dict(stored.variables))
    pixels = np.zeros((40, 100, 3), np.uint8)
    batch, scale = again.prepare(pixels)
    # 100 pixels become 64, the longest that is allowed.
    assert (scale, batch["size"].tolist()) == (0.64, [[26, 64]])
    assert batch["image"].shape == (1, 48, 64, 3)
    np.testing.assert_allclose(batch["image"][0, 0, 0], -NORMALISATION.offset[0, 0]
                               * NORMALISATION.scale[0, 0], rtol=1e-6)  # fmt: skip
    for shape, message in (
        ((4, 30, 3), "30x4 pixels .* stride of 8, expected at least 8x8"),
        ((10, 300, 3), "300x10 pixels .* and 64x2 after resizing"),
        ((0, 8, 3), "8x0 pixels"),
        ((9, 9), r"expected uint8\[H, W, 3\]"),
    ):
        with pytest.raises(UserError, match=message):
            again.prepare(np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match="class_names has 1 names; expected 2"):
        dataclasses.replace(again, class_names=("red",))


def test_files_that_hold_no_detector_are_refused(classifier, tmp_path):
    save, _ = classifier
    with pytest.raises(UserError, match="holds the classification network 'resnet20_cifar10'"):
        load_detector(save("e.safetensors"))
    with pytest.raises(UserError, match="it does not exist"):
        load_detector(tmp_path / "absent")
    with pytest.raises(UserError, match="no run in"):
        load_detector(tmp_path)
    (tmp_path / "seed0").mkdir()
    with pytest.raises(UserError, match="is not finished"):
        load_detector(tmp_path)
    (tmp_path / "seed0" / "record.json").write_text("{}")
    with pytest.raises(UserError, match="trained no detector"):
        load_detector(tmp_path)
    stored = small_stored("resnet20_cifar10")
    file = tmp_path / "wrong.safetensors"
    # Of another depth than the file says, and with other numbers of classes.
    save_detector(file, stored)
    with pytest.raises(UserError, match="does not fit the network"):
        load_detector(file)
    detector = an.detection.create_detector(
        "resnet20_cifar10", num_classes=3, settings=stored.detector.settings, depth=8
    )
    other = dataclasses.replace(stored, detector=detector, class_names=CLASS_NAMES)
    save_detector(file, other, note={"overrides": {"depth": 8}})
    with pytest.raises(UserError, match="does not fit the network: params/network/linear"):
        load_detector(file)


# -- drawings, tables, figures


def test_boxes_are_drawn_at_their_places():
    picture = np.full((20, 30, 1), 90, np.uint8)
    drawn = draw_boxes(picture, np.array([[2, 3, 12, 20.0], [0, 0, 40, 40]]), ["", ""],
                       [(255, 0, 0), (0, 0, 255)])  # fmt: skip
    assert drawn.shape == (20, 30, 3)
    assert drawn[2, 3].tolist() == drawn[11, 19].tolist() == [255, 0, 0]
    # What leaves the picture ends at its border.
    assert drawn[19, 29].tolist() == drawn[0, 15].tolist() == [0, 0, 255]
    assert drawn[15, 25].tolist() == [90, 90, 90]
    named = draw_boxes(np.repeat(picture, 3, -1), np.array([[12, 3, 18, 20.0]]), ["a 0.9"], [TRUTH])
    assert (named != 90).any(axis=-1)[:12].any()
    empty = draw_boxes(picture, np.zeros((0, 4)), [], [])
    assert (empty == 90).all()
    assert class_colour(0) == class_colour(8)
    with pytest.raises(ValueError, match="1 boxes, 0 texts"):
        draw_boxes(picture, np.zeros((1, 4)), [], [])


@pytest.fixture
def records(measured, tmp_path):
    _, found = measured
    metrics = metrics_of(found, ("red", "blue"))
    metrics["speed.dense"] = Metric(2.5, "images/s", 8)
    plain = {name: metric for name, metric in metrics.items() if not name.startswith("ponder")}
    arrays = {name: array for name, array in found.arrays.items() if name != "ponder"}
    return [
        write_run(tmp_path, SACT_ID, Outcome(metrics, found.arrays, 60.0, 4000), {}, preset="day"),
        write_run(tmp_path, PLAIN_ID, Outcome(plain, arrays, 60.0, 4000), {}, preset="day"),
        write_run(tmp_path, PLAIN_ID, Outcome(plain, arrays, 1.0, 2), {}, preset="smoke"),
    ]


def test_tables_and_figures_show_every_run_but_those_of_smoke(records):
    precision = tables.precision_table(records)
    assert precision.count("\n") == 4
    assert f"`{SACT_ID}`" in precision
    assert "preset smoke" not in precision
    assert "| 2.50 | – | – |" in precision
    assert tables.classes_table(records).count("| blue |") == 2
    ponder = tables.ponder_table(records)
    assert (SACT_ID in ponder, f"`{PLAIN_ID}`" in ponder) == (True, False)
    assert tables.DETECTIONS in tables.picture(records)
    drawn = [figure for figure in figures(records) if isinstance(figure, Figure)]
    assert [len(figure.pictures) for figure in drawn] == [2, 1]
    assert "<svg" in detections_picture(records)
    pictures = drawn_pictures(records[0].arrays())
    assert (pictures == 255).all(axis=-1).any()
    for part in tables.PARTS.values():
        assert part([]) == "Not measured: there is no record.\n"
    assert detections_picture([]) == ""
    assert isinstance(figures([])[0], Missing)


# -- whole runs


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "coco128_small").is_dir(), reason="needs COCO's first 128 images")
@pytest.mark.parametrize("name", ["sact.coco.resnet50", "sact.coco.resnet101-sact-tau5e-3"])
def test_rows_of_coco_run_on_real_photographs(name, tmp_path):
    entry = find_experiment(name)
    config = entry.presets["smoke"].config
    data = dataclasses.replace(config.train.data, name="coco128", batch_size=4, test_limit=4)
    images = dataclasses.replace(config.images, generated=False, test="train", short=96, long=160)
    config = dataclasses.replace(
        config, images=images, train=dataclasses.replace(config.train, data=data)
    )
    (record,) = execute(
        entry, preset="smoke", config=config, seeds=1, out=tmp_path / "run", data_dir=ROOT,
        progress=SilentProgress(), announce=lambda line: None,
    )  # fmt: skip
    # Two of the 128 images have no object.
    assert record.dataset["train"] == 126
    assert record.metric("flops_share") is not None
    stored = load_detector(tmp_path / "run")
    assert len(stored.class_names) == 80
    if "-sact" in name:
        model, _, _ = an.load_run(tmp_path / "run" / "seed0" / "backbone")
        assert getattr(model, "num_classes") == 81 + 4 * 80  # noqa: B009
