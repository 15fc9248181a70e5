"""Generated shapes, and the division of a set without training images."""

from __future__ import annotations

import dataclasses

import numpy as np

from adaptive_nets.data import load
from adaptive_nets.data.shapes import SHAPES, SIZE, draw_shapes
from adaptive_nets.data.splits import divided


def test_the_embedded_set_is_what_the_program_draws():
    dataset = load("four_shapes", source="embedded")
    for split, seed in ((dataset.train, 0), (dataset.test, 1)):
        assert split is not None
        images, labels = draw_shapes(len(split), seed=seed)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    assert dataset.class_names == SHAPES


def test_shapes_have_the_areas_of_their_polygons():
    images, labels = draw_shapes(400, seed=7)
    assert images.shape == (400, SIZE, SIZE, 1)
    assert set(np.unique(images)) == {0, 255}
    np.testing.assert_array_equal(np.bincount(labels), [100] * 4)
    areas = [np.mean(images[labels == label] > 0) for label in range(4)]
    # Areas for radius r: πr², 2r², 10·½·0.45·sin(36°)·r² and ¾·√3·r².
    factors = np.array([np.pi, 2.0, 5 * 0.45 * np.sin(np.pi / 5), 0.75 * np.sqrt(3)])
    np.testing.assert_allclose(np.array(areas) / areas[0], factors / factors[0], rtol=0.1)
    border = np.concatenate([images[:, 0], images[:, -1]], axis=1)
    assert np.mean(border > 0) < 0.02


def test_a_set_of_test_images_is_divided():
    whole = load("digits", source="embedded", splits=("test",))
    found = divided(whole, every=10)
    assert (found.count("train"), found.count("test")) == (405, 45)
    assert found.train is not None
    assert found.test is not None
    assert whole.test is not None
    np.testing.assert_array_equal(found.test.images, whole.test.images[::10])
    np.testing.assert_array_equal(found.train.labels[:9], whole.test.labels[1:10])
    assert not found.complete
    assert dataclasses.replace(found, train=None).count("train") == 0
