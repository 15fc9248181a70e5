"""The task of the training loop: its measures, its metrics, and a run that learns by heart."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import output_by_hand, pictures, small_detector
from numpy_boxes import average_precision50, iou_matrix

from adaptive_nets import detection
from adaptive_nets.data import Dataset, Split
from adaptive_nets.data.boxes import BoxSource, Resize, detection_batches, load_boxes
from adaptive_nets.detection.batch import checked
from adaptive_nets.detection.task import detection_measures
from adaptive_nets.training.config import (
    DataConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.loop import train

ROOT = Path(os.environ.get("ADAPTIVE_NETS_DATA", "absent"))
CLASSES = 3
LEARNING = detection.DetectorSettings(
    detection.ProposalSettings(
        anchor_sizes=(12.0, 24.0), channels=64, stride=2, samples=64, candidates=200, proposals=24
    ),
    detection.RegionSettings(crop_size=6, samples=24),
)


def dataset_of(batch) -> Dataset:
    split = Split.of(batch)
    return Dataset(
        name="rectangles",
        source="files",
        location="memory",
        num_classes=CLASSES,
        class_names=("red", "blue", "green"),
        train=split,
        test=split,
        fingerprint="0" * 64,
        complete=True,
    )


def config_of(steps: int, size: int, **optimiser) -> TrainConfig:
    return TrainConfig(
        data=DataConfig(batch_size=size, eval_batch_size=size, standardise=True,
                        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        optimiser=OptimiserConfig(**optimiser),
        schedule=ScheduleConfig(length=f"{steps} steps", kind="cosine"),
        run=RunConfig(
            log_every=f"{max(1, steps // 10)} steps",
            eval_every=f"{steps} steps",
            checkpoint_every=f"{steps} steps",
            tensorboard=False,
        ),
    )  # fmt: skip


def test_measures_equal_the_loop(rng):
    output = output_by_hand(rng)
    found = jax.jit(detection.detections)(output)
    boxes = np.asarray(output.regions[:, :3]) + rng.uniform(-1, 1, (2, 3, 4)).astype(np.float32)
    labels = np.array([[0, 1, -1], [2, 2, 0]], np.int32)
    crowd = np.array([[False, False, False], [False, True, False]])
    weight = np.array([1.0, 0.0], np.float32)
    batch = {"boxes": jnp.asarray(boxes), "labels": jnp.asarray(labels),
             "crowd": jnp.asarray(crowd), "weight": jnp.asarray(weight)}  # fmt: skip
    measured = jax.jit(detection_measures)(output, batch)
    assert float(measured["recall50"].count) == 2
    hits = 0
    for g in range(2):
        overlaps = iou_matrix(boxes[0, g : g + 1], np.asarray(found.boxes[0]))[0]
        same = np.asarray((found.labels[0] == labels[0, g]) & found.valid[0])
        hits += bool(np.any((overlaps >= 0.5) & same))
    assert float(measured["recall50"].total) == hits
    assert float(measured["proposal_recall50"].total) == 2
    assert measured["detections"].value() == int(found.valid[0].sum())


def test_the_loop_flips_no_images_without_their_boxes(tmp_path, complains):
    batch = pictures(4, classes=CLASSES)
    config = config_of(2, 4)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, flip=True))
    task = detection.detection_task(small_detector("resnet20_cifar10", CLASSES))
    complains(
        lambda: train(task, config, dataset=dataset_of(batch), directory=tmp_path, seed=0),
        "--data.flip is True",
        "its own augmentation",
    )


def test_a_task_has_the_shapes_of_the_loop(key):
    """One step is traced as the loop does: initial state, objective, metrics, measures."""
    detector = small_detector("resnetv1_20_sact_cifar10")
    task = detection.detection_task(detector, rate=lambda step: 0.1 * (step + 1))
    batch = jax.tree.map(jnp.asarray, pictures(2))
    keys = {"params": key, "sampling": key}

    def step():
        variables = dict(detector.init(keys, task.inputs(batch), train=False))
        rngs = dict.fromkeys(task.streams, key)
        output = detector.apply(variables, task.inputs(batch), train=True, rngs=rngs)
        return task.objective(None)(output, batch, variables["params"], jnp.int32(3))

    loss, metrics = jax.eval_shape(step)
    assert loss.shape == ()
    assert {"anchor_classes", "region_boxes", "ponder/1", "ponder/3"} <= metrics.keys()


@pytest.mark.data
@pytest.mark.skipif(not (ROOT / "BCCD").is_dir(), reason="needs BCCD in $ADAPTIVE_NETS_DATA")
def test_a_batch_of_real_photographs_trains(complains):
    """The reader's batch has the arrays, shapes and numbers that the network expects."""
    found = load_boxes("bccd", root=ROOT)
    source = BoxSource(found.split("train"), Resize(120, 160))
    batch = next(detection_batches(source, batch_size=2, seed=0, batches=1))
    checked(batch, train=True, num_classes=found.num_classes)
    complains(lambda: checked(batch, train=True, num_classes=1), "labels holds")
    detector = detection.create_detector("resnet32_sact_cifar10", num_classes=found.num_classes)
    keys = {"params": jax.random.key(0), "sampling": jax.random.key(1)}
    output, _ = jax.eval_shape(lambda: detector.init_with_output(keys, batch, True))
    assert output.image_size == batch["image"].shape[1:3]
    assert jax.eval_shape(detection.detection_loss, output).total.shape == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20_cifar10", "resnetv1_20_sact_cifar10"])
def test_a_detector_learns_eight_pictures_by_heart(name, tmp_path):
    overrides = {"depth": 14} if name == "resnet20_cifar10" else {"stage_sizes": (2, 2, 2)}
    detector = detection.create_detector(name, num_classes=CLASSES, settings=LEARNING, **overrides)
    batch = pictures(8, size=(48, 64), slots=2, sides=(12, 30), classes=CLASSES)
    data = dataset_of(batch)
    task = detection.detection_task(detector, rate=lambda step: jnp.float32(0.005))
    config = config_of(300, 8, learning_rate=2e-3, clip_norm=5.0)
    result = train(task, config, dataset=data, directory=tmp_path, seed=0)
    variables = result.state.eval_variables
    found = jax.jit(lambda v: detection.detections(detector.apply(v, batch)))(variables)
    real = [labels >= 0 for labels in batch["labels"]]
    truth = [(batch["boxes"][n][real[n]], batch["labels"][n][real[n]]) for n in range(8)]
    guesses = [
        tuple(np.asarray(a[n])[np.asarray(found.valid[n])]
              for a in (found.boxes, found.labels, found.scores))
        for n in range(8)
    ]  # fmt: skip
    assert average_precision50(truth, guesses, CLASSES) > 0.95
