"""Any task goes through one loop: without labels, with several arrays, streamed, untrained."""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_training import StopAt, assert_same, logged, with_values

from adaptive_nets.data import Dataset, Split
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training import setup
from adaptive_nets.training.loop import train
from adaptive_nets.training.mesh import make_mesh
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Task
from experiments.suite import execution
from experiments.suite.experiment import Experiment, Metric, Outcome, Preset

BOXES = 3


class Autoencoder(nn.Module):
    """Pixels from eight numbers, with dropout between."""

    @nn.compact
    def __call__(self, x, train=False):
        z = nn.Dense(8, name="encoder")(x.reshape(len(x), -1))
        z = nn.Dropout(0.1, deterministic=not train, rng_collection="holes")(z)
        return nn.Dense(x[0].size, name="decoder")(z).reshape(x.shape)


class Boxes(nn.Module):
    """Corners of three boxes in each image."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(4 * BOXES, name="corners")(x.reshape(len(x), -1)).reshape(-1, BOXES, 4)


def autoencoding():
    def squares(output, batch):
        return jnp.mean((output - batch["image"]) ** 2, axis=(1, 2, 3))

    def objective(output, batch, params, step):
        each = squares(output, batch)
        return jnp.mean(each), {"square": Mean.of(each)}

    return Task(
        Autoencoder(),
        lambda timing: objective,
        lambda output, batch: {"square": Mean.of(squares(output, batch), batch["weight"])},
        streams=("holes",),
    )


def mirror(key, rows):
    """Mirrors an image together with its boxes, (y1, x1, y2, x2) in pixels."""
    images, boxes = rows["image"], rows["boxes"]
    chosen = jax.random.bernoulli(key, 0.5, (len(images),))
    width = jnp.float32(images.shape[2])
    y1, x1, y2, x2 = jnp.moveaxis(boxes, -1, 0)
    turned = jnp.stack([y1, width - x2, y2, width - x1], axis=-1)
    return {
        **rows,
        "image": jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images),
        "boxes": jnp.where(chosen[:, None, None], turned, boxes),
    }


def locating(told=None):
    """A task without labels whose loss and evaluation are means over the boxes that exist."""

    def distances(output, batch):
        return jnp.mean(jnp.abs(output - batch["target"]), axis=-1)

    def objective(timing):
        if told is not None:
            told.append(timing)

        def loss(output, batch, params, step):
            mean = Mean.of(distances(output, batch), batch["valid"])
            return mean.total / jnp.maximum(mean.count, 1.0), {"distance": mean}

        return loss

    def measures(output, batch):
        weights = batch["valid"] * batch["weight"][:, None]
        found = distances(output, batch)
        return {"distance": Mean.of(found, weights), "near": Mean.of(found < 0.3, weights)}

    def prepare(rows):
        return {"pixels": rows["image"], "target": rows["boxes"] / 6.0, "valid": rows["valid"]}

    return Task(
        Boxes(), objective, measures, inputs=lambda batch: batch["pixels"], prepare=prepare,
        augment=mirror, streams=(),
        shown=lambda measured: {"near %": 100 * measured["near"]},
    )  # fmt: skip


def box_split(count, seed):
    """Images with one to three bright boxes; what stands beyond the last is not a number."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 6, 6, 1)).astype(np.uint8)
    corners = rng.integers(0, 4, (count, BOXES, 2))
    boxes = np.concatenate([corners, corners + 2], axis=-1).astype(np.float32)
    valid = np.arange(BOXES) < rng.integers(1, BOXES + 1, (count, 1))
    boxes[~valid] = np.nan
    for image, own, exists in zip(images, corners, valid, strict=True):
        for y, x in own[exists]:
            image[y : y + 2, x : x + 2] += 90
    return Split(images, boxes=boxes, valid=valid)


def dataset_of(train, test, **others):
    values = {"num_classes": 0, "class_names": (), "fingerprint": "0" * 64, "complete": True}
    return Dataset("made up", "files", "memory", train=train, test=test, **values, **others)


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of arrays, read one by one."""

    split: Split

    @property
    def size(self):
        return len(self.split)

    def read(self, number, generator):
        return {name: array[number] for name, array in self.split.arrays.items()}

    def first(self, count):
        return Rows(self.split.first(count))


@pytest.fixture
def config(config):
    return with_values(
        config,
        data={"centre": "none"},
        schedule={"length": "12 steps"},
        run={"eval_every": "6 steps", "checkpoint_every": "5 steps", "input_threads": 2},
    )


def go(task, config, dataset, directory, **options):
    directory.mkdir(parents=True, exist_ok=True)
    return train(task, config, dataset=dataset, directory=directory, seed=0, **options)


def images_alone():
    return dataset_of(Split(box_split(40, 1).images), Split(box_split(11, 2).images))


def images_with_boxes():
    return dataset_of(box_split(40, 1), box_split(11, 2))


def images_with_boxes_streamed():
    streams = {"train": Rows(box_split(40, 1)), "test": Rows(box_split(11, 2))}
    return dataset_of(None, None, streams=streams)


# Boxes in memory differ from streamed ones in how they are fed only, and from other images in
# memory in the loss only.
each = pytest.mark.parametrize(
    ("make", "data"),
    [
        pytest.param(autoencoding, images_alone, id="autoencoder", marks=pytest.mark.slow),
        pytest.param(locating, images_with_boxes, id="boxes", marks=pytest.mark.slow),
        pytest.param(locating, images_with_boxes_streamed, id="streamed"),
    ],
)


def without_waiting(directory):
    return [{k: v for k, v in x.items() if k != "input_wait"} for x in logged(directory)]


@each
def test_it_learns_resumes_to_the_same_state_and_needs_one_device_as_well_as_four(
    make, data, config, tmp_path, monkeypatch
):
    dataset = data()
    whole = go(make(), config, dataset, tmp_path / "whole")
    lines = logged(tmp_path / "whole")
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < losses[0]
    with pytest.raises(Interrupted):
        go(make(), config, dataset, tmp_path / "parts", progress=StopAt(7))
    continued = go(make(), config, dataset, tmp_path / "parts")
    assert continued.resumed_from >= 7
    assert_same(whole.state, continued.state)
    assert without_waiting(tmp_path / "whole") == without_waiting(tmp_path / "parts")
    one = lambda mesh: make_mesh(mesh, jax.devices()[:1])  # noqa: E731
    monkeypatch.setattr(setup, "make_mesh", one)
    alone = go(make(), config, dataset, tmp_path / "alone")
    assert len(jax.tree.leaves(alone.state.params)[0].sharding.device_set) == 1
    ends = [jax.tree.leaves(result.state.params) for result in (whole, alone)]
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_evaluation_without_labels_counts_every_image_once(config, tmp_path):
    result = go(autoencoding(), config, images_alone(), tmp_path)
    measured = result.evaluate(result.state.variables, result.test)
    x = box_split(11, 2).images / np.float32(255)
    output = Autoencoder().apply(jax.device_get(result.state.variables), x)
    assert measured["square"] == pytest.approx(float(np.mean((output - x) ** 2)), rel=1e-5)
    assert measured["count"] == 11
    (last,) = [line for line in logged(tmp_path) if line["step"] == 12 and "test/square" in line]
    assert last["test/square"] == measured["square"]
    assert not any("error" in name or "nll" in name for name in last)


@pytest.mark.parametrize("data", [images_with_boxes, images_with_boxes_streamed])
def test_boxes_that_do_not_exist_and_padding_count_for_nothing(data, config, tmp_path):
    shown = []

    class Noting(SilentProgress):
        def update(self, done, values=None):
            shown.append(dict(values or {}))

    result = go(locating(), config, data(), tmp_path, progress=Noting())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))
    measured = result.evaluate(result.state.variables, result.test)
    test = box_split(11, 2)
    x = test.images / np.float32(255)
    output = Boxes().apply(jax.device_get(result.state.variables), x)
    valid = test.arrays["valid"]
    distances = np.abs(output - test.arrays["boxes"] / 6).mean(axis=-1)[valid]
    assert len(distances) < valid.size
    assert measured["distance"] == pytest.approx(distances.mean(), rel=1e-5)
    assert measured["near"] == pytest.approx((distances < 0.3).mean(), rel=1e-5)
    assert set(shown[-1]) == {"loss", "near %"}


@pytest.mark.parametrize("data", [images_with_boxes, images_with_boxes_streamed])
def test_the_objective_is_told_the_real_length_of_the_data(data, config, tmp_path):
    told = []
    config = with_values(config, schedule={"length": "2 epochs"})
    result = go(locating(told), config, data(), tmp_path)
    assert {timing.examples for timing in told} == {40}
    assert result.timing.steps_per_epoch == 40 // 8
    assert result.timing.total_steps == int(result.state.step) == 10


def test_changes_that_would_not_be_made_are_refused(config, tmp_path):
    flipped = with_values(config, data={"flip": True})
    with pytest.raises(UserError, match=r"--data\.flip is True; expected False, since the task"):
        go(locating(), flipped, images_with_boxes(), tmp_path)
    numbers = Split(numbers=np.zeros((40, 3), np.float32))
    task = dataclasses.replace(autoencoding(), inputs=lambda batch: batch["numbers"])
    with pytest.raises(UserError, match=r"--data\.flip is True; .* examples have no images"):
        go(task, flipped, dataset_of(numbers, numbers), tmp_path)
    centred = with_values(config, data={"centre": "channel"})
    with pytest.raises(UserError, match=r"--data\.centre is 'channel'; expected 'none'"):
        go(locating(), centred, images_with_boxes_streamed(), tmp_path)


def test_rows_need_not_be_images(config, tmp_path):
    """A line through points, by least squares."""

    def objective(output, batch, params, step):
        return jnp.mean((output[:, 0] - batch["y"]) ** 2), {}

    x = np.linspace(-1, 1, 40, dtype=np.float32)
    split = Split(x=x[:, None], y=2 * x + 1)
    task = Task(
        nn_dense_with_train(), lambda timing: objective,
        lambda output, batch: {"miss": Mean.of(abs(output[:, 0] - batch["y"]), batch["weight"])},
        inputs=lambda batch: batch["x"],
    )  # fmt: skip
    config = with_values(
        config,
        optimiser={"learning_rate": 0.1},
        schedule={"length": "100 steps"},
        run={"eval_every": "100 steps", "checkpoint_every": "100 steps"},
    )
    result = go(task, config, dataset_of(split, split), tmp_path)
    assert result.evaluate(result.state.variables, result.test)["miss"] < 0.2


def nn_dense_with_train():
    class Line(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Dense(1)(x)

    return Line()


def test_arrays_of_a_split_have_equally_many_rows_and_their_own_names():
    with pytest.raises(ValueError, match=r"\{'image': 2, 'boxes': 3\} rows"):
        Split(np.zeros((2, 1, 1, 1), np.uint8), boxes=np.zeros((3, 4)))
    with pytest.raises(ValueError, match="'weight'; expected another name"):
        Split(weight=np.zeros(3))
    with pytest.raises(ValueError, match="at least one"):
        Split()
    split = Split(numbers=np.arange(5))
    np.testing.assert_array_equal(
        split.first(2).replace(more=np.zeros(2)).arrays["numbers"], [0, 1]
    )
    assert not split.arrays["numbers"].flags.writeable


# -- an experiment that trains nothing


@dataclasses.dataclass(frozen=True)
class CountConfig:
    """Numbers that are counted."""

    up_to: int = 4
    """The last one."""


@dataclasses.dataclass(frozen=True)
class ImagesConfig:
    """Images that are counted."""

    name: str = "mnist"
    """Name of the data set."""
    source: str = "embedded"
    """Origin of the set."""
    test_limit: int = 7
    """Take the first so many."""


@dataclasses.dataclass(frozen=True)
class CountingConfig:
    """Counts, and needs nothing for it."""

    numbers: CountConfig = CountConfig()


@dataclasses.dataclass(frozen=True)
class CountingImagesConfig(CountingConfig):
    """Counts the images of a data set too."""

    data: ImagesConfig = ImagesConfig()


def count(config, *, dataset, directory, seed, progress, title):
    """A runner, see `experiments.suite.experiment.Runner`."""
    metrics = {
        "sum": Metric(float(sum(range(config.numbers.up_to + 1))), "numbers"),
        "images": Metric(float(dataset.count("test")), "images"),
    }
    return Outcome(metrics, {}, seconds=0.0, steps=0)


@pytest.mark.parametrize(("config", "images"), [(CountingConfig(), 0), (CountingImagesConfig(), 7)])
def test_an_experiment_without_training_leaves_a_record(config, images, tmp_path):
    experiment = Experiment(
        id="counting.table1.numbers", title="", row="table1.numbers",
        presets={"smoke": Preset(config)}, runner=f"{__name__}:count", data="none",
    )  # fmt: skip
    said = []
    execute = functools.partial(
        execution.execute, experiment, preset="smoke", config=config, seeds=1,
        out=tmp_path / "run", data_dir=None, progress=SilentProgress(), announce=said.append,
    )  # fmt: skip
    (record,) = execute()
    assert record.metric("sum").value == 10
    assert record.metric("images").value == record.dataset["test"] == images
    assert record.config["numbers"] == {"up_to": 4}
    assert set(record.config) == {f.name for f in dataclasses.fields(config)}
    assert record.changed == []
    assert ("data: none" in said[0]) == (images == 0)
    (again,) = execute()
    assert again.content == record.content
