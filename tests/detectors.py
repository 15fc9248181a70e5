"""Small detectors, pictures with boxes, and detector outputs made by hand."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy_boxes import iou_matrix

from adaptive_nets import detection
from adaptive_nets.detection.output import AnchorScores, DetectorOutput

SETTINGS = detection.DetectorSettings(
    detection.ProposalSettings(
        anchor_sizes=(10.0, 20.0), channels=8, stride=2, samples=16, candidates=40, proposals=6
    ),
    detection.RegionSettings(crop_size=4, sampling_ratio=1, samples=8),
)
SMALL = {"stage_sizes": (2, 1, 2), "widths": (4, 8, 8)}
IMAGE_SIZE = (32, 48)
COLOURS = np.array([[230, 40, 40], [40, 60, 230], [40, 220, 60]])


@functools.cache
def small_detector(name: str, classes: int = 2):
    adaptive = "act" in name
    return detection.create_detector(
        name, num_classes=classes, settings=SETTINGS, **(SMALL if adaptive else {"depth": 8})
    )


def _initialise(name: str):
    key, batch = jax.random.key(3), pictures(2)
    return lambda: small_detector(name).init({"params": key, "sampling": key}, batch)


@functools.cache
def variables_of(name: str):
    return jax.jit(_initialise(name))()


@functools.cache
def shapes_of(name: str):
    return jax.eval_shape(_initialise(name))


@functools.cache
def compiled(name: str, *, train: bool = False):
    """Returns (variables, batch, key) -> output of a small detector."""
    detector = small_detector(name)

    def apply(variables, batch, key):
        rngs = {"sampling": key} if train else {}
        return detector.apply(variables, batch, train, rngs=rngs)

    return jax.jit(apply)


def pictures(count: int, size=IMAGE_SIZE, slots: int = 3, sides=(8, 20), classes: int = 2, seed=0):
    """Returns a batch of grey pictures with rectangles, whose colour is their class."""
    rng = np.random.default_rng(seed)
    images = rng.normal(110, 8, (count, *size, 3))
    boxes = np.zeros((count, slots, 4), np.float32)
    labels = np.full((count, slots), -1, np.int32)
    for n in range(count):
        for g in range(rng.integers(1, slots + 1)):
            height, width = rng.integers(*sides, 2)
            top = rng.integers(0, size[0] - height + 1)
            left = rng.integers(0, size[1] - width + 1)
            box = np.array([top, left, top + height, left + width], np.float32)
            if iou_matrix([box], boxes[n]).max() > 0.1:
                continue
            label = int(rng.integers(classes))
            images[n, top : top + height, left : left + width] = COLOURS[label]
            boxes[n, g], labels[n, g] = box, label
    return {
        "image": images.clip(0, 255).astype(np.uint8),
        "size": np.tile(np.array(size, np.int32), (count, 1)),
        "boxes": boxes,
        "labels": labels,
        "crowd": np.zeros((count, slots), np.bool_),
        "image_id": np.arange(count, dtype=np.int32),
        "scale": np.ones(count, np.float32),
    }


def output_by_hand(rng, *, images=2, regions=5, anchors=7, classes=3, blocks=(), **others):
    """Returns a detector's output with random values in its arrays."""
    corners = rng.uniform(0, 30, (images, regions, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 20, corners.shape)], axis=2)
    scores = AnchorScores(
        logits=jnp.asarray(rng.standard_normal((images, anchors)), jnp.float32),
        deltas=jnp.asarray(rng.standard_normal((images, anchors, 4)), jnp.float32),
        anchors=jnp.zeros((anchors, 4)),
        inside=jnp.ones((images, anchors), bool),
    )
    values = {
        "anchors": scores,
        "regions": jnp.asarray(boxes, jnp.float32),
        "region_valid": jnp.asarray(rng.random((images, regions)) < 0.8),
        "class_logits": jnp.asarray(
            2 * rng.standard_normal((images, regions, classes + 1)), jnp.float32
        ),
        "box_deltas": jnp.asarray(rng.standard_normal((images, regions, classes, 4)), jnp.float32),
        "size": jnp.asarray([[32, 48]] * images, jnp.int32),
        "blocks": blocks,
        "anchor_targets": None,
        "region_targets": None,
        "image_size": IMAGE_SIZE,
        "map_sizes": ((32, 48), (16, 24), (2, 2)),
    }
    return DetectorOutput(**{**values, **others})
