"""Objects in image files, by the detector of a run."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from detectors import SMALL, small_detector, variables_of
from PIL import Image

from adaptive_nets.data.boxes import Resize
from adaptive_nets.detection import detections, feature_cost, image_ponder_map
from adaptive_nets.detection.stored import StoredDetector, save_detector
from adaptive_nets.models.normalisation import IMAGENET_STATISTICS
from adaptive_nets.models.weights import save_network
from experiments.__main__ import main

SACT, PLAIN = "resnetv1_20_sact_cifar10", "resnet20_cifar10"
NORMALISATION = IMAGENET_STATISTICS.to_input_normalisation()
NAMES = ("red cell", "blue cell")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of an adaptive and of a plain detector, by name of the backbone."""
    found = {}
    for name, overrides in ((SACT, SMALL), (PLAIN, {"depth": 8})):
        run = tmp_path_factory.mktemp("runs")
        (run / "seed0").mkdir()
        (run / "seed0" / "record.json").write_text("{}")
        stored = StoredDetector(
            small_detector(name), jax.device_get(variables_of(name)), NORMALISATION, NAMES,
            Resize(32, 48), 8,
        )  # fmt: skip
        save_detector(run / "seed0" / "detector.safetensors", stored, note={"overrides": overrides})
        found[name] = run
    return found


@pytest.fixture
def folder(tmp_path, rng):
    """Two pictures of one size, and a file that is no image."""
    place = tmp_path / "pictures"
    place.mkdir()
    for name in ("a", "b"):
        pixels = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{name}.png")
    (place / "notes.txt").write_text("no image")
    return place


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        capsys.readouterr()
        code = main(["detect", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_objects_are_those_of_the_network_in_pixels_of_the_picture(call, runs, folder, tmp_path):
    code, text, err = call(
        folder, "--run", runs[SACT], "--threshold", 0.3, "--out", tmp_path / "out", "--json"
    )
    assert code == 0
    assert "passed over: 1 files ending in .txt" in err
    report = json.loads(text)
    assert (report["backbone"], report["classes"]) == (SACT, list(NAMES))
    detector, variables = small_detector(SACT), variables_of(SACT)
    apply = jax.jit(lambda v, b: detector.apply(v, b))
    for name, listed in zip(("a", "b"), report["images"], strict=True):
        with Image.open(folder / f"{name}.png") as image:
            small = image.resize((48, 32), Image.Resampling.BILINEAR)
        pixels = NORMALISATION.apply(np.asarray(small)[None])
        output = apply(variables, {"image": pixels, "size": np.array([[32, 48]])})
        found = detections(output, score_threshold=0.3)
        count = int(found.valid.sum())
        assert count > 0
        assert len(listed["objects"]) == count
        for i, thing in enumerate(listed["objects"]):
            assert thing["class"] == NAMES[int(found.labels[0, i])]
            assert thing["score"] == pytest.approx(float(found.scores[0, i]), abs=1e-4)
            box = [thing[side] for side in ("y1", "x1", "y2", "x2")]
            # The picture is twice as large as the network's.
            np.testing.assert_allclose(box, 2 * found.boxes[0, i], atol=0.02)
        assert listed["share"] == pytest.approx(feature_cost(detector, output).mean_share, abs=1e-3)
        assert listed["ponder"] == pytest.approx(float(image_ponder_map(output).mean()), rel=1e-3)
        assert listed["pictures"].keys() == {"boxes", "ponder"}
        for kind in ("boxes", "ponder"):
            with Image.open(tmp_path / "out" / f"{name}.{kind}.png") as drawn:
                assert drawn.size == (96, 64)


def test_a_plain_detector_lists_without_pictures(call, runs, folder):
    code, text, err = call(folder / "a.png", "--run", runs[PLAIN], "--threshold", 0.2)
    assert code == 0
    header, *lines = text.splitlines()
    assert header.split("\t") == ["file", "class", "score", "y1", "x1", "y2", "x2", "share"]
    assert f"{len(lines)} object" in err
    for line in lines:
        cells = line.split("\t")
        assert cells[0].endswith("a.png")
        assert cells[1] in NAMES
        assert float(cells[2]) >= 0.2
        assert float(cells[-1]) == 1
    code, text, _ = call(folder / "a.png", "--run", runs[PLAIN], "--threshold", 1.0)
    assert (code, len(text.splitlines())) == (0, 1)


def refused(call, *arguments) -> str:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    # A remark on what was passed over may come first.
    lines = [line for line in err.splitlines() if "passed over" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_mistakes_get_one_line(call, runs, folder, tmp_path):
    run, picture = runs[SACT], folder / "a.png"
    assert "expects image files or folders" in refused(call, "--run", run)
    assert "--run is not given" in refused(call, picture)
    assert "absent.png does not exist" in refused(call, "absent.png", "--run", run)
    message = refused(call, folder / "notes.txt", "--run", run)
    assert "notes.txt cannot be read as an image" in message
    Image.fromarray(np.zeros((5, 40, 3), np.uint8)).save(tmp_path / "thin.png")
    message = refused(call, tmp_path / "thin.png", "--run", run, "--out", tmp_path / "none")
    assert "thin.png is 40x5 pixels" in message
    assert "expected at least 8x8" in message
    for value in ("1.5", "-0.1", "nan"):
        assert "threshold" in refused(call, picture, "--run", run, "--threshold", value)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(call, picture, "--run", run, "--out", tmp_path / "file")


def test_runs_that_are_no_detectors_are_refused(call, folder, tmp_path):
    picture = folder / "a.png"
    assert "it does not exist" in refused(call, picture, "--run", tmp_path / "absent")
    seed = tmp_path / "run" / "seed0"
    seed.mkdir(parents=True)
    (seed / "record.json").write_text("{}")
    save_network(
        seed / "network.safetensors", model="lenet_300_100", num_classes=10,
        variables={"params": {"a": np.ones(1, np.float32)}}, normalisation=NORMALISATION,
    )  # fmt: skip
    message = refused(call, picture, "--run", tmp_path / "run")
    assert "trained no detector" in message
    message = refused(call, picture, "--run", seed / "network.safetensors")
    assert "holds the classification network 'lenet_300_100'" in message
    file = tmp_path / "detector.safetensors"
    file.write_bytes(b"damaged")
    assert "cannot be read as safetensors" in refused(call, picture, "--run", file)
