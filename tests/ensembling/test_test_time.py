"""Averages over views and pools of predictions: values, snapshots and resumption."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp

from adaptive_nets.ensembling import (
    average_views,
    crop_views,
    predict_pool,
    predict_view,
    streaming,
    unchanged_views,
)

IMAGES, BATCH = 7, 3
BATCHES = 3
"""Batches of a view of seven images, three at a time."""


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (IMAGES, 6, 5, 3), dtype=np.uint8)


def statistics(images) -> np.ndarray:
    """Logits of an analytic network: means of channels and the slope from left to right."""
    x = np.asarray(images, np.float64)
    slope = (x * np.linspace(-1, 1, x.shape[2])[:, None]).mean((1, 2, 3))
    return np.column_stack([x.mean((1, 2)) / 40, slope / 20])


def analytic(images) -> np.ndarray:
    return log_softmax(statistics(images), axis=-1).astype(np.float32)


def noisy_views(key, images, number):
    """Adds noise to each image, and the number of the view."""
    noise = jax.random.uniform(key, (images.shape[0], 1, 1, 3), minval=-80, maxval=80)
    return images + noise + number


class Counted:
    """Predictor that counts its calls and fails at one of them."""

    def __init__(self, predict=analytic, *, fail_at: int | None = None):
        self.predict, self.fail_at, self.calls, self.shapes = predict, fail_at, 0, set()

    def __call__(self, images):
        self.calls += 1
        self.shapes.add(images.shape)
        if self.calls == self.fail_at:
            raise RuntimeError("interrupted")
        return self.predict(images)


class Recorder:
    """Progress reporter that keeps what it is told."""

    def __init__(self):
        self.started, self.updates, self.finished = {}, [], 0

    def start(self, title, *, done, total, unit="steps"):
        self.started = {"title": title, "done": done, "total": total, "unit": unit}

    def update(self, done, values=None):
        self.updates.append(done)

    def finish(self):
        self.finished += 1

    def show(self, content):
        raise AssertionError(content)


def log_mean(views) -> np.ndarray:
    array = np.asarray(views, np.float64)
    return logsumexp(array, axis=0) - np.log(len(array))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6, 7, 100])
def test_every_image_is_predicted_once_in_order(batch_size, images):
    calls = []
    counted = Counted()
    found = predict_view(
        counted, images, unchanged_views, 0, batch_size=batch_size,
        after_batch=lambda: calls.append(1),
    )  # fmt: skip
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, analytic(images), atol=1e-6)
    assert len(calls) == counted.calls == -(-IMAGES // batch_size)
    # One program serves the last batch too.
    assert counted.shapes == {(min(batch_size, IMAGES), 6, 5, 3)}


def test_views_get_pixels_as_float32(images):
    def views(key, pixels, number):
        assert isinstance(pixels, jax.Array)
        assert pixels.dtype == jnp.float32
        assert number == 4
        return pixels

    predict_view(analytic, images, views, 4, batch_size=BATCH)


def test_seeds_and_numbers_decide_the_view(images):
    def view(number, seed):
        return predict_view(analytic, images, noisy_views, number, seed=seed, batch_size=BATCH)

    np.testing.assert_array_equal(view(3, 0), view(3, 0))
    assert np.abs(view(3, 0) - view(3, 1)).max(1).min() > 1e-3
    assert np.abs(view(3, 0) - view(2, 0)).max(1).min() > 1e-3


def test_images_and_batches_have_views_of_their_own(images):
    same = np.repeat(images[:1], 11, axis=0)
    seen = []

    def views(key, pixels, number):
        seen.append(np.asarray(noisy_views(key, pixels, number)))
        return pixels

    predict_view(analytic, same, views, 0, batch_size=4)
    assert [len(part) for part in seen] == [4, 4, 4]
    pixels = np.concatenate(seen).reshape(12, -1)
    assert len(np.unique(pixels, axis=0)) == 12


def test_crops_differ_between_images_and_numbers(rng):
    same = np.repeat(rng.integers(1, 256, (1, 8, 8, 3), dtype=np.uint8), 12, axis=0)
    views = [predict_view(analytic, same, crop_views(), n, batch_size=5) for n in (0, 1)]
    for view in views:
        assert len(np.unique(view, axis=0)) > 8
    assert (np.abs(views[0] - views[1]).max(1) > 0).sum() > 8


def test_average_equals_the_average_of_the_views(images):
    counts = [1, 2, 5, 6]
    views = [predict_view(analytic, images, noisy_views, n, seed=3, batch_size=BATCH)
             for n in range(6)]  # fmt: skip
    found = average_views([analytic], images, noisy_views, counts=counts, seed=3, batch_size=BATCH)
    assert list(found) == counts
    for count in counts:
        assert found[count].dtype == np.float64
        np.testing.assert_allclose(found[count], log_mean(views[:count]), atol=1e-6)
        np.testing.assert_allclose(np.exp(found[count]).sum(1), 1, rtol=1e-12)
    assert np.abs(found[6] - np.mean(views, axis=0)).max() > 0.01


@pytest.mark.parametrize("members", [1, 2, 3, 7])
def test_members_take_turns(members, images):
    rows = np.log(np.arange(1, 3 * members + 1).reshape(members, 3) % 7 + 1.0)
    rows = log_softmax(rows, axis=-1)
    networks = [Counted(lambda x, row=row: np.tile(row, (len(x), 1))) for row in rows]
    counts = [1, 2, 3, 4, 5]
    found = average_views(networks, images, unchanged_views, counts=counts, batch_size=BATCH)
    for count in counts:
        expected = log_mean([rows[s % members] for s in range(count)])
        np.testing.assert_allclose(found[count], np.tile(expected, (IMAGES, 1)), atol=1e-6)
    assert sum(network.calls for network in networks) == 5 * BATCHES


def test_results_depend_on_the_seed_alone(images):
    first, again, other = (
        average_views([analytic], images, crop_views(2), counts=[3], seed=seed, batch_size=BATCH)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first[3], again[3])
    assert np.abs(first[3] - other[3]).max() > 1e-4


def run(predict, images, store=None, **options):
    options = {"counts": [1, 3, 5], "batch_size": BATCH, "identity": {"weights": "a"}, **options}
    return average_views([predict], images, noisy_views, store=store, **options)


def equal(found, expected):
    assert list(found) == list(expected)
    for count, values in expected.items():
        np.testing.assert_array_equal(found[count], values)


# Calls 1 to 3 predict view 0: the first, a middle and the last batch of a view.
@pytest.mark.parametrize("fail_at", [1, 4, 8, 9, 15])
def test_interrupted_average_is_resumed(fail_at, images, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SAVE_EVERY", 0.0)
    expected = run(Counted(), images)
    store = tmp_path / "new" / "store.npz"
    with pytest.raises(RuntimeError, match="interrupted"):
        run(Counted(fail_at=fail_at), images, store)
    finished = (fail_at - 1) // BATCHES
    assert store.exists() == (finished > 0)
    counted, progress = Counted(), Recorder()
    equal(run(counted, images, store, progress=progress, title="views"), expected)
    assert counted.calls == (5 - finished) * BATCHES
    assert progress.started == {
        "title": "views",
        "done": finished * BATCHES,
        "total": 5 * BATCHES,
        "unit": "batches",
    }
    assert progress.updates == list(range(finished * BATCHES + 1, 5 * BATCHES + 1))
    assert progress.finished == 1


def test_average_is_interrupted_again_and_again(images, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "SAVE_EVERY", 0.0)
    store, attempts = tmp_path / "store.npz", 0
    while True:
        attempts += 1
        try:
            found = run(Counted(fail_at=BATCHES + 2), images, store)
        except RuntimeError:
            continue
        break
    assert attempts == 5
    equal(found, run(Counted(), images))


def test_views_between_two_writes_are_repeated(images, tmp_path):
    store, counted = tmp_path / "store.npz", Counted()
    with pytest.raises(RuntimeError, match="interrupted"):
        run(Counted(fail_at=10), images, store)
    assert not store.exists()
    equal(run(counted, images, store), run(Counted(), images))
    assert counted.calls == 5 * BATCHES


def test_finished_average_is_read(images, tmp_path):
    store, counted = tmp_path / "store.npz", Counted()
    expected = run(Counted(), images, store)
    equal(run(counted, images, store), expected)
    equal(run(counted, images, store, counts=[3]), {3: expected[3]})
    assert counted.calls == 0
    assert [path.name for path in tmp_path.iterdir()] == ["store.npz"]


def test_more_views_are_added_to_a_finished_average(images, tmp_path):
    store, counted = tmp_path / "store.npz", Counted()
    run(Counted(), images, store, counts=[1, 3])
    equal(run(counted, images, store, counts=[1, 3, 6]), run(Counted(), images, counts=[1, 3, 6]))
    assert counted.calls == 3 * BATCHES


def test_members_go_on_in_turn(images, tmp_path):
    def network(row):
        return lambda x: np.tile(np.log(row), (len(x), 1))

    networks = [network([0.9, 0.1]), network([0.2, 0.8])]
    store = tmp_path / "store.npz"
    average_views(networks, images, unchanged_views, counts=[3], store=store)
    found = average_views(networks, images, unchanged_views, counts=[4], store=store)
    np.testing.assert_allclose(np.exp(found[4][0]), [0.55, 0.45], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"identity": {"weights": "b"}}, "weights"),
        ({"identity": {}}, "weights"),
        ({"identity": {"weights": "a", "images": 7}}, "images"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 4}, "batch_size"),
    ],
)
def test_store_of_another_identity_is_refused(options, name, images, tmp_path, complains):
    store = tmp_path / "store.npz"
    run(Counted(), images, store)
    before, counted = store.read_bytes(), Counted()
    complains(lambda: run(counted, images, store, **options), store, f"another {name};", "remove")
    assert counted.calls == 0
    assert store.read_bytes() == before


def test_missing_snapshot_is_reported_before_any_view(images, tmp_path, complains):
    store, counted = tmp_path / "store.npz", Counted()
    run(Counted(), images, store, counts=[1, 4])
    complains(lambda: run(counted, images, store, counts=[2]), store, "4 views", "average of 2")
    complains(lambda: run(counted, images, store, counts=[2, 6]), store, "4 views", "average of 2")
    assert counted.calls == 0


def test_damaged_store_is_one_line(images, tmp_path, complains):
    store = tmp_path / "store.npz"
    run(Counted(), images, store)
    whole = store.read_bytes()
    cut = [whole[:size] for size in (0, 3, 50, len(whole) // 2, len(whole) - 1)]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in [*cut, b"no archive", bytes(flipped)]:
        store.write_bytes(content)
        complains(lambda: run(Counted(), images, store), store, "damaged", "remove it")


def test_store_without_its_parts_is_one_line(images, tmp_path, complains):
    store = tmp_path / "store.npz"
    np.savez(store, total=np.zeros((IMAGES, 4)))
    complains(lambda: run(Counted(), images, store), store, "damaged")
    np.savez(store, identity=np.array([None], object))
    complains(lambda: run(Counted(), images, store), store, "damaged")


def test_store_of_other_images_is_one_line(images, tmp_path, complains):
    store = tmp_path / "store.npz"
    run(Counted(), images, store)
    complains(lambda: run(Counted(), images[:5], store, counts=[6]), "(5, 4)", "(7, 4)")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"counts": []}, ("views", "[]")),
        ({"counts": [0]}, ("views", "0", "at least 1")),
        ({"counts": [2, 1]}, ("views", "[2, 1]", "increasing")),
        ({"counts": [1, 1]}, ("views", "[1, 1]", "increasing")),
        ({"counts": [1.5]}, ("views", "1.5", "integer")),
        ({"batch_size": 0}, ("batch_size is 0", "at least 1")),
        ({"batch_size": -2}, ("batch_size is -2", "at least 1")),
    ],
)
def test_bad_arguments_are_one_line(options, texts, images, complains):
    counted = Counted()
    complains(lambda: run(counted, images, **options), *texts)
    assert counted.calls == 0


def test_no_members_and_no_images_are_one_line(images, tmp_path, complains):
    complains(lambda: average_views([], images, noisy_views, counts=[1]), "predictors are empty")
    complains(lambda: run(analytic, images[:0]), "images are empty")
    complains(lambda: predict_view(analytic, images[:0], noisy_views, 0), "images are empty")
    path = tmp_path / "pool.npy"
    complains(lambda: pool(analytic, images[:0], path), "images are empty")
    assert not path.exists()


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_bad_batch_size_of_a_view_is_one_line(batch_size, images, complains):
    complains(
        lambda: predict_view(analytic, images, noisy_views, 0, batch_size=batch_size),
        f"batch_size is {batch_size}",
    )


def pool(predict, images, path, **options):
    options = {"count": 4, "batch_size": BATCH, "identity": {"weights": "a"}, **options}
    return predict_pool(predict, images, noisy_views, path=path, **options)


def test_pool_holds_the_predictions_of_all_candidates(images, tmp_path):
    path = tmp_path / "new" / "pool.npy"
    found = pool(analytic, images, path, seed=2)
    assert isinstance(found, np.memmap)
    assert found.dtype == np.float32
    assert found.shape == (4, IMAGES, 4)
    for number in range(4):
        expected = predict_view(analytic, images, noisy_views, number, seed=2, batch_size=BATCH)
        np.testing.assert_array_equal(found[number], expected)
    np.testing.assert_array_equal(np.load(path), found)


@pytest.mark.parametrize("fail_at", [1, 4, 6, 9, 12])
def test_interrupted_pool_is_resumed(fail_at, images, tmp_path):
    expected = np.array(pool(Counted(), images, tmp_path / "whole.npy"))
    path = tmp_path / "pool.npy"
    with pytest.raises(RuntimeError, match="interrupted"):
        pool(Counted(fail_at=fail_at), images, path)
    counted, progress = Counted(), Recorder()
    found = pool(counted, images, path, progress=progress)
    finished = (fail_at - 1) // BATCHES
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    assert counted.calls == (4 - finished) * BATCHES
    assert progress.started["done"] == finished * BATCHES
    assert progress.updates[-1] == progress.started["total"] == 4 * BATCHES
    again = Counted()
    np.testing.assert_array_equal(pool(again, images, path), expected)
    assert again.calls == 0


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"identity": {"weights": "b"}}, "weights"),
        ({"seed": 1}, "seed"),
        ({"batch_size": 4}, "batch_size"),
        ({"count": 5}, "count"),
    ],
)
def test_pool_of_another_identity_is_refused(options, name, images, tmp_path, complains):
    path, counted = tmp_path / "pool.npy", Counted()
    expected = np.array(pool(Counted(), images, path))
    complains(lambda: pool(counted, images, path, **options), path, f"another {name};", "remove")
    assert counted.calls == 0
    np.testing.assert_array_equal(np.load(path), expected)


def test_damaged_pool_is_one_line(images, tmp_path, complains):
    path = tmp_path / "pool.npy"
    pool(Counted(), images, path)
    whole, note = path.read_bytes(), path.with_suffix(".json")
    for content in (b"", whole[:20], b"no array" * 40):
        path.write_bytes(content)
        complains(lambda: pool(Counted(), images, path), path, "remove it")
    path.write_bytes(whole)
    for text in ("", "[]", '{"done": 4}', json.dumps({"done": 9, "identity": {}})):
        note.write_text(text)
        complains(lambda: pool(Counted(), images, path), path.stem)


def test_truncated_pool_is_not_filled_with_zeros(images, tmp_path, complains):
    path = tmp_path / "pool.npy"
    whole = pool(Counted(), images, path).nbytes
    cut = path.read_bytes()[: -whole // 2]
    path.write_bytes(cut)
    complains(lambda: pool(Counted(), images, path), path, "remove it")
    assert path.read_bytes() == cut


@pytest.mark.parametrize("done", [-1, 5])
def test_pool_with_an_impossible_number_of_candidates_is_one_line(
    done, images, tmp_path, complains
):
    path = tmp_path / "pool.npy"
    pool(Counted(), images, path)
    note = path.with_suffix(".json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "done": done}))
    complains(lambda: pool(Counted(), images, path), path, "remove it")


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"count": 0}, ("count is 0", "at least 1")),
        ({"count": 1.0}, ("count is 1.0", "integer")),
        ({"batch_size": 0}, ("batch_size is 0", "at least 1")),
    ],
)
def test_bad_arguments_of_a_pool_are_one_line(options, texts, images, tmp_path, complains):
    path = tmp_path / "pool.npy"
    complains(lambda: pool(Counted(), images, path, **options), *texts)
    assert not path.exists()
