"""A trained network is found, and comes back with what it takes to use it."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from torch_files import archive, state_dict

import adaptive_nets as an
from adaptive_nets.data.device import DeviceSplit, normalise, standardise_each
from adaptive_nets.models.weights import (
    InputNormalisation,
    find_network,
    load_weights,
    save_network,
)
from adaptive_nets.runtime.errors import UserError

MEAN_IMAGE = np.linspace(0, 0.5, 784, dtype=np.float32).reshape(28, 28, 1)
NORMALISATION = InputNormalisation(256.0, MEAN_IMAGE, np.ones((1, 1, 1), np.float32))
RECORD = {
    "config": {"model": {"name": "lenet_300_100_sparse_vd"}, "schedule": {"length": "8 steps"}},
    "dataset": {"name": "mnist"},
}


@pytest.fixture(scope="module")
def variables():
    model = an.create_model("lenet_300_100")
    return jax.device_get(model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))


@pytest.fixture
def write(variables):
    """Writes a seed's folder of a run."""

    def make(folder, *names, finished=True, **note):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            save_network(
                folder / name,
                model="lenet_300_100",
                num_classes=10,
                variables=variables,
                normalisation=NORMALISATION,
                note=note,
            )
        if finished:
            (folder / "record.json").write_text(json.dumps(RECORD))
        return folder

    return make


def test_a_run_a_seed_and_a_file_name_the_same_network(tmp_path, write):
    run = tmp_path / "quick"
    write(run / "seed0", "checkpoint.txt", finished=False)
    write(run / "seed10", "network.safetensors")
    seed = write(run / "seed2", "network.safetensors", "pruned.safetensors")
    best = seed / "pruned.safetensors"
    for path in (run, str(run), seed, best):
        assert find_network(path) == best
    assert find_network(seed / "network.safetensors").name == "network.safetensors"
    assert find_network(run / "seed10").name == "network.safetensors"


def test_what_is_no_finished_run_is_named(tmp_path, write):
    def complains(path, *texts):
        with pytest.raises(UserError) as caught:
            find_network(path)
        assert "\n" not in str(caught.value)
        for text in texts:
            assert str(text) in str(caught.value)

    complains(tmp_path / "none", tmp_path / "none", "does not exist", "expected")
    complains(tmp_path, "no run in", "expected the folder of a finished run")
    write(tmp_path / "begun" / "seed0", finished=False)
    (tmp_path / "begun" / "seed0" / "metrics.jsonl").touch()
    complains(tmp_path / "begun", "not finished", "resumes it")
    complains(tmp_path / "begun" / "seed0", "not finished")
    write(tmp_path / "costs" / "seed0")
    complains(tmp_path / "costs", "exports none")
    complains(tmp_path / "costs" / "seed0", "exports none")
    for tau in ("tau0.2", "tau0.1"):
        (tmp_path / "costs" / "seed0" / tau).mkdir()
        (tmp_path / "costs" / "seed0" / tau / "network.safetensors").touch()
    several = "holds several networks (tau0.1, tau0.2); name one, such as"
    complains(tmp_path / "costs", several, tmp_path / "costs" / "seed0" / "tau0.1")
    complains(tmp_path / "costs" / "seed0", several)
    complains(tmp_path / "costs" / "seed0" / "record.json", "name the folder")
    write(tmp_path / "id" / "quick" / "seed0", "network.safetensors")
    complains(tmp_path / "id", f"try {tmp_path / 'id' / 'quick'}")
    weights = state_dict({"fc1.weight": np.zeros((3, 2), np.float32)})
    (tmp_path / "net.pth").write_bytes(archive(weights))
    complains(tmp_path / "net.pth", "not exported by a run", "--model NAME --weights FILE")


def test_what_is_loaded_is_ready_for_apply(tmp_path, write, variables):
    run = tmp_path / "run"
    write(run / "seed0", "pruned.safetensors")
    model, loaded, config = an.load_run(str(run))
    assert jax.tree.all(jax.tree.map(np.array_equal, loaded, variables))
    assert config["schedule"] == {"length": "8 steps"}
    assert config["model"]["name"] == "lenet_300_100"
    assert config["data"]["name"] == "mnist"
    assert config["input_shape"] == (28, 28, 1)
    assert config["class_names"] == tuple("0123456789")
    assert config["normalisation"]["pixel_scale"] == 256.0
    np.testing.assert_array_equal(config["normalisation"]["offset"], MEAN_IMAGE)
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    found = an.prepare_images(images, config)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images / np.float32(256) - MEAN_IMAGE, rtol=1e-6)
    assert model.apply(loaded, found, train=False).shape == (3, 10)


def test_a_file_alone_says_what_its_header_holds(tmp_path, write):
    folder = write(tmp_path / "exported", "network.safetensors", finished=False, data="mnist")
    _, _, config = an.load_run(folder / "network.safetensors")
    assert config["data"] == {"name": "mnist"}
    assert config["class_names"] == tuple("0123456789")
    folder = write(tmp_path / "older", "network.safetensors", finished=False)
    _, _, config = an.load_run(folder)
    assert config["class_names"] is None
    assert config["input_shape"] == (28, 28, 1)


def test_a_record_that_is_none_is_named(tmp_path, write):
    seed = write(tmp_path / "run" / "seed0", "network.safetensors")
    for content, message in (("{", "cannot be read"), ("[]", "no configuration")):
        (seed / "record.json").write_text(content)
        with pytest.raises(UserError, match=message):
            an.load_run(seed)


def test_weights_of_other_tools_need_the_name_of_their_network(tmp_path, write):
    file = write(tmp_path / "seed0", "network.safetensors") / "network.safetensors"
    assert load_weights(file, "lenet_300_100")[2]["model"]["num_classes"] == 10
    for call, message in (
        (lambda: load_weights(file, "lenet5_caffe"), "of the network 'lenet_300_100'"),
        (lambda: load_weights(file, "lenet_300_100", mean=[0.1], std=[1.0]), "other tools"),
        (lambda: load_weights(tmp_path, "lenet_300_100"), "is a folder"),
        (lambda: load_weights(tmp_path / "none", "lenet_300_100"), "does not exist"),
    ):
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.parametrize("per_image", [False, True])
def test_inputs_are_normalised_as_in_training(rng, per_image):
    images = rng.integers(0, 256, (4, 6, 5, 3), np.uint8)
    images[0] = 7
    offset = rng.random((6, 5, 3), np.float32)
    scale = rng.random((1, 1, 3), np.float32) + 1
    split = DeviceSplit(
        {"image": jnp.asarray(images)}, jnp.asarray(offset), jnp.asarray(scale), jnp.float32(255)
    )
    expected = normalise(split, split.images)
    expected = standardise_each(expected) if per_image else expected
    found = InputNormalisation(255.0, offset, scale, per_image).apply(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_pixels_of_another_form_are_refused(tmp_path, write):
    _, _, config = an.load_run(write(tmp_path / "seed0", "network.safetensors"))
    for images in (np.zeros((1, 28, 28, 1)), np.zeros((1, 32, 32, 1), np.uint8)):
        with pytest.raises(UserError, match=r"expected uint8\[N, 28, 28, 1\]"):
            an.prepare_images(images, config)
    Image.new("L", (28, 28), 9).save(tmp_path / "a.png")
    prepared = an.prepare_images([tmp_path / "a.png"], config, invert=True)
    np.testing.assert_allclose(prepared[0], 246 / np.float32(256) - MEAN_IMAGE, rtol=1e-6)
