"""Losses under run-time masks against the same in NumPy, one candidate at a time."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest

from adaptive_nets.perforation import nearest_kept, uniform_mask
from adaptive_nets.perforation.filled_loss import FilledLoss
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core

SIZES = {"first": (6, 7), "block/second": (3, 3)}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(4, (3, 3), (2, 2), name="second")(x)


class Small(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(3, (1, 1), name="first")(x))
        x = nn.relu(Block(name="block")(nn.max_pool(x, (2, 2))))
        return nn.Dense(3, name="head")(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def setting():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(7, 6, 7, 2)).astype(np.float32)
    labels = rng.integers(0, 3, 7)
    model = Small()
    variables = model.init(jax.random.key(1), images, train=False)
    variables = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), dict(variables)
    )
    loss = FilledLoss(model, variables, sizes=SIZES, images=images, labels=labels, batch_size=3)
    return model, variables, images, labels, loss


def random_map(seed, size):
    return nearest_kept(jax.random.key(seed), uniform_mask(jax.random.key(seed), size, 0.4))


def reference(setting, maps):
    """The first layer and everything after it, step by step in float64."""
    _, variables, images, labels, _ = setting
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])

    def filled(y, name):
        if name not in maps:
            return y
        rows, columns = np.unravel_index(maps[name], y.shape[1:3])
        return y[:, rows, columns]

    y = filled(images @ p["first"]["kernel"][0, 0] + p["first"]["bias"], "first")
    y = np.maximum(y, 0)
    y = np.max([y[:, i : i + 5, j : j + 6] for i in (0, 1) for j in (0, 1)], axis=0)
    # 5x6 at stride 2 with SAME: windows of 3 begin at row 0 − 1 and at column 0.
    y = np.pad(y, ((0, 0), (1, 1), (0, 1), (0, 0)))
    kernel = p["block"]["second"]["kernel"]
    z = np.zeros((len(y), 3, 3, 4))
    for i in range(3):
        for j in range(3):
            window = y[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            z[:, i, j] = np.tensordot(window, kernel, 3)
    z = np.maximum(filled(z + p["block"]["second"]["bias"], "block/second"), 0)
    logits = z.mean(axis=(1, 2)) @ p["head"]["kernel"] + p["head"]["bias"]
    logits -= logits.max(axis=1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wrong = np.mean(np.argmax(logits, axis=1) != labels)
    return np.array([-log_probabilities[np.arange(7), labels].mean(), wrong])


def test_losses_are_those_of_the_perforated_network(setting):
    loss = setting[4]
    first, second = random_map(1, (6, 7)), random_map(2, (3, 3))
    for maps in ({}, {"first": first}, {"first": first, "block/second": second}):
        assert loss.of(maps) == pytest.approx(reference(setting, maps)[0], rel=1e-5)
        np.testing.assert_allclose(loss.evaluate(maps), [reference(setting, maps)], rtol=1e-5)


def test_candidates_change_one_layer_each(setting):
    loss = setting[4]
    first, second = random_map(1, (6, 7)), random_map(2, (3, 3))
    candidates = [("first", random_map(3, (6, 7))), ("block/second", second), ("first", first)]
    calls = []
    got = loss.candidate_losses({"first": first}, candidates, after_batch=lambda: calls.append(1))
    expected = [{"first": first}] + [{"first": first, name: m} for name, m in candidates]
    np.testing.assert_allclose(got, [reference(setting, maps)[0] for maps in expected], rtol=1e-5)
    assert got[0] == pytest.approx(got[3], rel=1e-6)
    # Seven images in batches of three; the last one is filled up.
    assert len(calls) == loss.batches == 3


def test_masks_are_run_time_arrays(setting):
    model, variables, images, labels, _ = setting
    loss = FilledLoss(model, variables, sizes=SIZES, images=images[:2], labels=labels[:2])
    for seed in (1, 2, 3):
        loss.candidate_losses(
            {"first": random_map(seed, (6, 7))}, [("first", random_map(seed + 3, (6, 7)))]
        )
    programs = [loss._whole, loss._from_layer["first"]]
    assert [program._cache_size() for program in programs] == [1, 1]


@pytest.mark.parametrize(("images", "labels"), [(0, 0), (2, 3)])
def test_images_without_labels_are_refused(setting, images, labels):
    model, variables, pictures, _, _ = setting
    with pytest.raises(UserError, match=f"there are {images} images and {labels} labels"):
        FilledLoss(
            model, variables, sizes=SIZES, images=pictures[:images], labels=np.zeros(labels, int)
        )
