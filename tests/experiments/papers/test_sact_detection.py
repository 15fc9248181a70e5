"""Detectors as an experiment: pictures, starting weights, mistakes in settings."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from classifier_files import OFFSET, classifier_files

from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.models.normalisation import IMAGENET_STATISTICS
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from experiments.papers.sact_detection import experiment
from experiments.papers.sact_detection.generated import CLASS_NAMES, generated_boxes
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


def starting_from(config, weights):
    return dataclasses.replace(
        config, start=dataclasses.replace(config.start, weights=str(weights))
    )


# -- data


def test_generated_pictures_have_their_rectangles_in_their_boxes():
    found = generated_boxes()
    assert found.fingerprint == generated_boxes().fingerprint
    assert found.counts() == {"train": 16, "val": 8, "test": 8}
    dataset = smoke(PLAIN_ID).read_data(root=None)
    source = dataset.streams["test"]
    assert (dataset.class_names, dataset.num_classes) == (CLASS_NAMES, 3)
    # Train and val together are trained on.
    assert dataset.count("train") == 24
    for number in range(source.size):
        row = source.read(number, None)
        for box, label in zip(row["boxes"], row["labels"], strict=True):
            if label < 0:
                continue
            y1, x1, y2, x2 = box.astype(int)
            inside = row["image"][y1:y2, x1:x2].reshape(-1, 3)
            assert (inside == inside[0]).all()
            # The colours of the classes: red, blue, green.
            assert inside[0].argmax() == (0, 2, 1)[label]


def test_limits_and_splits_of_the_set():
    config = smoke(PLAIN_ID)
    data = dataclasses.replace(config.train.data, train_limit=5, test_limit=100)
    limited = dataclasses.replace(config, train=dataclasses.replace(config.train, data=data))
    dataset = limited.read_data(root=None)
    assert (dataset.count("train"), dataset.count("test")) == (5, 8)
    assert not dataset.complete
    other = dataclasses.replace(config, images=dataclasses.replace(config.images, test="night"))
    with pytest.raises(UserError, match=r"split 'night' of rectangles .* train or val or test"):
        other.read_data(root=None)


def test_images_below_the_stride_and_absent_sets_are_refused(tmp_path):
    config = smoke(PLAIN_ID)
    coarse = dataclasses.replace(config.images, multiple=64)
    with pytest.raises(UserError, match=r"64 x 48 pixels .* expected at least 64"):
        dataclasses.replace(config, images=coarse).read_data(root=None)
    real = dataclasses.replace(config.images, generated=False)
    with pytest.raises(UserError, match="bccd: nothing found in"):
        dataclasses.replace(config, images=real).read_data(root=tmp_path)
    with pytest.raises(UserError, match=r"--images\.long is 100; expected at least 200"):
        dataclasses.replace(config.images, short=200, long=100)


# -- start


def test_the_backbone_starts_from_the_weights_of_a_file(classifier):
    save, trained = classifier
    config = starting_from(smoke(SACT_ID), save("a.safetensors"))
    weights, normalisation = experiment.starting_weights(config, seed=0)
    np.testing.assert_array_equal(normalisation.offset, OFFSET.offset)
    task = experiment.detector_task(config, 3, weights)
    shapes = experiment.abstract_variables(task.model)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    assert task.start is not None
    params, state = task.start(zeros.pop("params"), zeros)
    own = params["network"]
    np.testing.assert_array_equal(
        own["layer1_0"]["conv1"]["kernel"], trained["params"]["layer1_0"]["conv1"]["kernel"]
    )
    np.testing.assert_array_equal(
        state["batch_stats"]["network"]["layer2_0"]["bn1"]["mean"],
        trained["batch_stats"]["layer2_0"]["bn1"]["mean"],
    )
    # The linear layer is new, of C + 1 + 4·C outputs; heads have the bias of the flag.
    assert own["linear"]["kernel"].shape == (64, 16)
    assert not np.any(own["linear"]["kernel"])
    heads = jax.tree_util.tree_leaves_with_path(
        {name: tree for name, tree in own.items() if name.endswith("_head")}
    )
    biases = [float(leaf.ravel()[0]) for path, leaf in heads
              if path[-1].key == "bias" and not path[-2].key.startswith("norm")]  # fmt: skip
    assert biases == [-3.0] * len(biases)
    assert biases


def test_images_standardised_one_by_one_get_the_registered_normalisation(classifier):
    save, _ = classifier
    own = dataclasses.replace(OFFSET, per_image=True)
    config = starting_from(smoke(PLAIN_ID), save("b.safetensors", normalisation=own))
    _, normalisation = experiment.starting_weights(config, seed=0)
    np.testing.assert_array_equal(normalisation.offset, NORMALISATION.offset)
    assert not normalisation.per_image


def test_weights_of_another_network_are_refused_in_one_line(classifier, tmp_path):
    save, _ = classifier
    config = smoke(PLAIN_ID)
    with pytest.raises(UserError, match=r"--start\.weights is ''; expected .*'resnet20_cifar10'"):
        experiment.starting_weights(starting_from(config, ""), seed=0)
    other = save("c.safetensors", model="resnet32_cifar10")
    with pytest.raises(UserError, match="holds the network 'resnet32_cifar10'; expected 'resnet20"):
        experiment.starting_weights(starting_from(config, other), seed=0)
    with pytest.raises(UserError, match=r"--start\.weights is .* which does not exist"):
        experiment.starting_weights(starting_from(config, tmp_path / "absent.th"), seed=0)
    (tmp_path / "text.th").write_text("no weights")
    with pytest.raises(UserError, match=r"--start\.weights holds no network 'resnet20_cifar10'"):
        experiment.starting_weights(starting_from(config, tmp_path / "text.th"), seed=0)
    # A file that says another network than it holds.
    config = starting_from(config, save("d.safetensors"))
    weights, _ = experiment.starting_weights(config, seed=0)
    assert weights is not None
    weights["params"]["linear2"] = weights["params"].pop("layer1_0")
    with pytest.raises(UserError, match=r"--start\.weights is .*linear2"):
        experiment.detector_task(config, 3, weights)


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        (PLAIN_ID, "resnetv1_20_sact_cifar10", "expected a residual network of fixed depth"),
        (SACT_ID, "resnet20_cifar10", "expected a residual network of adaptive depth"),
        (PLAIN_ID, "vgg16", "expected a residual network with stages"),
    ],
)
def test_backbones_of_another_kind_are_refused(name, model, message):
    config = smoke(name)
    train = dataclasses.replace(
        config.train, model=dataclasses.replace(config.train.model, name=model)
    )
    with pytest.raises(UserError, match=message):
        experiment.detector_task(dataclasses.replace(config, train=train), 3, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": "random"}, r"--data\.labels is 'random'; expected 'true'"),
        ({"per_image": True}, r"--data\.per-image is True; expected False"),
        ({"flip": True}, r"--data\.flip is True"),
    ],
)
def test_settings_of_labelled_images_are_refused(values, message, tmp_path):
    config = smoke(PLAIN_ID)
    data = dataclasses.replace(config.train.data, batch_size=4, **values)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, data=data))
    with pytest.raises(UserError, match=message):
        experiment.run(
            config, dataset=config.read_data(root=None), directory=tmp_path, seed=0,
            progress=SilentProgress(), title="t",
        )  # fmt: skip


# -- measures
