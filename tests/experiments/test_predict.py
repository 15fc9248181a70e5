"""Image files on the command line, classified by the network of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_papers import TRAINED

import adaptive_nets as an
from adaptive_nets.data import load
from adaptive_nets.models.weights import InputNormalisation, save_network
from experiments.__main__ import main

pytestmark = pytest.mark.usefixtures("toy_paper")

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "resnet_cifar10"


@pytest.fixture(scope="module")
def run(toy_paper, tmp_path_factory):
    """A dense LeNet after some hundred steps."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    flags = ("--schedule.length", "200 steps", "--data.train-limit", "20000")
    flags += ("--data.test-limit", "1000", "--data.source", "embedded")
    assert main(["run", TRAINED, "--preset", "smoke", "--out", str(folder), *flags]) == 0
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twenty digits of the test set as PNG files, and their labels."""
    folder = tmp_path_factory.mktemp("digits")
    test = load("mnist", source="embedded", splits=("test",)).test
    assert test is not None
    for i in range(20):
        Image.fromarray(test.images[i, ..., 0]).save(folder / f"{i:02}.png")
    return folder, test.images[:20], test.labels[:20]


@pytest.fixture
def call(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_digits_are_recognised_as_by_the_network_itself(call, run, digits):
    folder, images, labels = digits
    code, out, _ = call("predict", folder, "--run", run, "--json")
    assert code == 0
    report = json.loads(out)
    assert (report["model"], report["data"]) == ("lenet_300_100", "mnist")
    found = [entry["classes"] for entry in report["images"]]
    assert (
        np.mean([classes[0]["label"] == k for classes, k in zip(found, labels, strict=True)]) > 0.8
    )
    model, variables, config = an.load_run(run)
    logits = np.asarray(model.apply(variables, an.prepare_images(images, config), train=False))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for classes, row in zip(found, shares, strict=True):
        assert [c["label"] for c in classes] == np.argsort(-row)[:5].tolist()
        probabilities = [c["probability"] for c in classes]
        np.testing.assert_allclose(probabilities, np.sort(row)[::-1][:5], rtol=1e-4)
        assert all(c["name"] == str(c["label"]) for c in classes)


def test_lines_of_a_pipe_and_notes_of_bright_backgrounds(call, run, digits, tmp_path):
    folder, images, labels = digits
    Image.fromarray(255 - images[0, ..., 0]).save(tmp_path / "paper.png")
    code, out, err = call("predict", tmp_path / "paper.png", folder / "01.png", "--run", run)
    assert code == 0
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert header == ["image", "rank", "label", "class", "probability"]
    assert len(rows) == 10
    notes = [line for line in err.splitlines() if "bright background" in line]
    assert len(notes) == 1
    assert "paper.png" in notes[0]
    assert "--invert" in notes[0]
    code, out, err = call("predict", tmp_path / "paper.png", "--run", run, "--invert", "--top", "1")
    assert out.splitlines()[1].split("\t")[2] == str(labels[0])
    assert "bright background" not in err


@pytest.mark.slow
def test_units_and_flops_of_a_network_of_adaptive_depth(call, tmp_path, rng):
    import jax
    import jax.numpy as jnp

    model = an.create_model("resnet32_sact_cifar10")
    variables = jax.device_get(model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    save_network(
        tmp_path / "network.safetensors",
        model="resnet32_sact_cifar10",
        num_classes=10,
        variables=variables,
        normalisation=InputNormalisation(
            255.0, np.full((1, 1, 3), 0.5, np.float32), np.ones((1, 1, 3), np.float32)
        ),
        note={"data": "cifar10"},
    )
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / "photo.jpg")
    flags = ("--run", tmp_path / "network.safetensors")
    code, out, _ = call("predict", tmp_path / "photo.jpg", *flags, "--json")
    assert code == 0
    (entry,) = json.loads(out)["images"]
    assert len(entry["units"]) == 3
    assert all(1 <= units <= 5 for units in entry["units"])
    assert entry["plain_flops"] == 2 * an.count_macs("resnetv2_32_cifar10")
    assert 0 < entry["flops"] < 1.1 * entry["plain_flops"]
    assert entry["share_of_plain"] == entry["flops"] / entry["plain_flops"]
    assert entry["classes"][0]["name"] in load_names("cifar10")


def test_what_a_small_network_of_adaptive_depth_spends(call, tmp_path, rng):
    """One unit in each of three blocks: all run, and the heads cost what the plain one lacks."""
    import jax

    from adaptive_nets.models.shapes import abstract_variables

    name, small = "resnetv1_20_act_cifar10", {"stage_sizes": [1, 1, 1], "widths": [4, 4, 4]}
    shapes = abstract_variables(an.create_model(name, **small), (32, 32, 3))
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, np.float32), shapes)
    ones = np.ones((1, 1, 3), np.float32)
    save_network(
        tmp_path / "n.safetensors", model=name, num_classes=10, variables=variables,
        normalisation=InputNormalisation(255.0, 0.5 * ones, ones),
        note={"data": "cifar10", "overrides": small},
    )  # fmt: skip
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    flags = ("--model", name, "--weights", tmp_path / "n.safetensors")
    code, out, err = call("predict", tmp_path / "a.png", *flags, "--top", "2")
    assert code == 0, err
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert header[5:] == ["units", "flops", "plain_flops", "share_of_plain"]
    assert len(rows) == 2
    # Stem, two convolutions a block (the maps shrink to 16 and 8), classifier.
    positions = (32 * 32, 16 * 16, 8 * 8)
    macs = 9 * positions[0] * 3 * 4 + sum(2 * 9 * p * 4 * 4 for p in positions) + 4 * 10
    units, flops, plain, share = rows[0][5:]
    assert (float(units), int(plain)) == (3, 2 * macs)
    assert float(share) == pytest.approx(int(flops) / int(plain), abs=1e-4)


def load_names(name):
    from adaptive_nets.data import lookup

    return lookup(name).class_names


@pytest.mark.data
@pytest.mark.skipif(not SHARED.is_dir(), reason="no trained weights in ../shared/data")
def test_weights_of_another_tool(call, tmp_path, rng):
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    flags = ("--model", "resnet20_cifar10", "--weights", SHARED / "resnet20-12fca82f.th")
    code, out, _ = call("predict", tmp_path / "a.png", *flags, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["data"] == "cifar10"
    assert report["images"][0]["classes"][0]["name"] in load_names("cifar10")


MISTAKES = {
    "no image": (("none.png", "--run", "."), "none.png does not exist"),
    "not an image": (("text.png", "--run", "RUN"), "text.png cannot be read as an image"),
    "no images": (("--run", "RUN"), "expects image files or folders"),
    "no run": (("DIGITS", "--run", "nowhere"), "no run in nowhere"),
    "no network": (("DIGITS",), "expects either --run DIR or --model NAME --weights FILE"),
    "two networks": (("DIGITS", "--run", "RUN", "--model", "x"), "expects either --run DIR"),
    "half a network": (("DIGITS", "--model", "lenet_300_100"), "--weights FILE is missing"),
    "other classes": (("DIGITS", "--run", "RUN", "--data", "cifar100"), "has 100 classes"),
    "no classes": (("DIGITS", "--run", "RUN", "--top", "0"), "--top is 0"),
    "mean of a run": (("DIGITS", "--run", "RUN", "--mean", "0", "--std", "1"), "--mean and --std"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_code_2(call, run, digits, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    arguments, message = MISTAKES[case]
    places = {"RUN": run, "DIGITS": digits[0] / "00.png"}
    code, out, err = call("predict", *(places.get(a, a) for a in arguments))
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("adaptive-nets: ")]
    assert len(lines) == 1, err
    assert message in lines[0]
