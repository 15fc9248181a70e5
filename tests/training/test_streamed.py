"""Training on a set that is read while it runs: the same loop, the same promises."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest_training import StopAt, assert_same, logged, run, with_values
from photographs import small_set

from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.models.mlp import MultilayerPerceptron
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.training.config import DataConfig
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.streamed import normalisation_constants


def network():
    return MultilayerPerceptron(hidden=(8,), num_classes=1000)


@pytest.fixture
def config(config):
    return with_values(
        config,
        data={"batch_size": 4, "eval_batch_size": 3, "flip": True, "standardise": True},
        schedule={"length": "12 steps"},
        run={"eval_every": "6 steps", "checkpoint_every": "4 steps", "input_threads": 2},
    )


def without_waiting(directory):
    return [{k: v for k, v in x.items() if k != "input_wait"} for x in logged(directory)]


def test_a_continued_run_ends_where_an_uninterrupted_one_does(config, built, tmp_path):
    dataset = small_set(built)
    whole = run(config, dataset, tmp_path / "whole", model=network())
    with pytest.raises(Interrupted):
        run(config, dataset, tmp_path / "parts", model=network(), progress=StopAt(7))
    continued = run(config, dataset, tmp_path / "parts", model=network())
    assert continued.resumed_from == 7
    assert_same(whole.state, continued.state)
    assert without_waiting(tmp_path / "whole") == without_waiting(tmp_path / "parts")
    assert all(0 <= x["input_wait"] <= 1 for x in logged(tmp_path / "whole") if "input_wait" in x)
    # Every test example counts once, although 6 do not divide by 4.
    values = whole.evaluate(whole.state.variables, whole.test)
    (batch,) = stream(
        dataset.streams["test"], rows=np.arange(6), batch_size=6, first=0, batches=1,
        options=StreamOptions(),
    )  # fmt: skip
    offset, scale, unit = normalisation_constants(dataset.streams["test"], config.data)
    images = (batch["image"].astype(np.float32) / unit - offset) * scale
    logits = network().apply(jax.device_get(whole.state.variables), images, train=False)
    assert values["count"] == 6
    assert values["nll"] == pytest.approx(float(cross_entropy(logits, batch["label"]).mean()), 1e-5)


def order_of(dataset, steps):
    """Numbers of the examples of each step."""
    from adaptive_nets.data.streams import epoch_permutation

    seed = int(jax.random.key_data(jax.random.key(0))[-1])
    count = len(dataset.streams["train"])
    each = count // 4
    return [
        epoch_permutation(seed, step // each, count)[4 * (step % each) : 4 * (step % each + 1)]
        for step in range(steps)
    ]


def test_a_damaged_record_saves_and_names_the_file(config, built, tmp_path):
    shutil.copytree(built, tmp_path / "copy")
    dataset = small_set(tmp_path / "copy")
    clean = run(config, dataset, tmp_path / "clean", model=network())
    path = Path(dataset.streams["train"].paths[0])
    content = path.read_bytes()
    at = content.index(b"\xff\xd8\xff") + 40
    path.write_bytes(content[:at] + bytes(20) + content[at + 20 :])
    with pytest.raises(UserError, match=r"array_record-00000-of-\d+: record 0 is damaged") as error:
        run(config, dataset, tmp_path / "run", model=network())
    assert "\n" not in str(error.value)
    path.write_bytes(content)
    continued = run(config, dataset, tmp_path / "run", model=network())
    # What was trained before the record was needed is not lost.
    first = next(i for i, batch in enumerate(order_of(dataset, 12)) if 0 in batch)
    assert continued.resumed_from == first
    assert_same(clean.state, continued.state)
    os.unlink(path)
    with pytest.raises(UserError, match="is missing"):
        small_set(tmp_path / "copy")


def test_what_only_a_set_in_memory_has_is_refused(config, built, tmp_path):
    dataset = small_set(built)
    for data, message in (
        ({"centre": "pixel"}, "--data.centre is 'pixel'; expected none, channel or middle"),
        ({"crop_padding": 2}, "--data.crop-padding is 2; expected 0"),
        ({"centre": "middle", "crop_area": (0.0, 1.0)}, "--data.crop-area is"),
        ({"crop_area": (0.9, 0.5)}, "--data.crop-area is"),
    ):
        with pytest.raises(UserError, match=message):
            run(with_values(config, data=data), dataset, tmp_path, model=network())
    alone = dataclasses.replace(dataset, streams={"train": dataset.streams["train"]})
    with pytest.raises(UserError, match="has no test part"):
        run(config, alone, tmp_path, model=network())


@pytest.mark.slow
def test_recipe_of_inception_is_a_function_of_seed_and_step(config, built, tmp_path):
    """Crops from 5 %, colour distortion, pixels in [-1, 1]: resumed bit by bit."""
    dataset = small_set(built)
    config = with_values(
        config,
        data={
            "crop_area": (0.05, 1.0), "colour_distortion": True,
            "centre": "middle", "pixel_scale": 127.5, "standardise": False,
        },
        schedule={"length": "4 steps"},
        run={"eval_every": "4 steps", "checkpoint_every": "1 steps"},
    )  # fmt: skip
    whole = run(config, dataset, tmp_path / "whole", model=network())
    with pytest.raises(Interrupted):
        run(config, dataset, tmp_path / "parts", model=network(), progress=StopAt(2))
    assert_same(whole.state, run(config, dataset, tmp_path / "parts", model=network()).state)
    offset, scale, unit = normalisation_constants(dataset.streams["train"], config.data)
    np.testing.assert_array_equal((np.array([0, 255]) / unit - offset[0, 0, 0]) * scale[0, 0, 0],
                                  [-1, 1])  # fmt: skip
    for changed in ({"colour_distortion": False}, {"crop_area": (0.08, 1.0)}):
        other = with_values(config, data=changed)
        found = run(other, dataset, tmp_path / next(iter(changed)), model=network())
        assert not np.array_equal(
            *(jax.tree.leaves(state.params)[0] for state in (whole.state, found.state))
        )


def test_statistics_are_those_of_the_set(built):
    split = small_set(built).streams["train"]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    for unit in (255.0, 256.0, 1.0):
        config = DataConfig(pixel_scale=unit, standardise=True)
        offset, scale, pixel_scale = normalisation_constants(split, config)
        x = np.array([[[10.0, 100.0, 200.0]]])
        np.testing.assert_allclose(
            (x / pixel_scale - offset) * scale, (x / 255 - mean) / deviation, rtol=1e-6
        )
