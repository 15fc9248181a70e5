"""Ponder maps of image files, by the network of a run or of a weights file."""

from __future__ import annotations

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import adaptive_nets as an
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.weights import InputNormalisation, save_network
from experiments.__main__ import main

NAME = "resnetv1_20_sact_cifar10"
PLAIN = "lenet_300_100"


def save(path, name, variables, **options):
    save_network(
        path,
        model=name,
        num_classes=10,
        variables=variables,
        normalisation=options.get("normalisation", OFFSET),
        note={"data": options.get("data", "cifar10")},
    )
    return path


OFFSET = InputNormalisation(
    255.0, np.full((1, 1, 3), 0.5, np.float32), np.full((1, 1, 3), 2, np.float32)
)


@pytest.fixture(scope="module")
def trained():
    """The network, with heads that halt early at some positions."""
    model = an.create_model(NAME)
    variables = jax.device_get(
        jax.jit(lambda k: model.init(k, jnp.zeros((1, 32, 32, 3))))(jax.random.key(0))
    )

    def change(path, leaf):
        name = jax.tree_util.keystr(path)
        if "head" in name and name.endswith("['bias']"):
            return np.full_like(leaf, 0.5)
        return leaf * np.float32(4) if "head" in name and "kernel" in name else leaf

    return model, jax.tree_util.tree_map_with_path(change, variables)


@pytest.fixture(scope="module")
def network(trained, tmp_path_factory):
    return save(tmp_path_factory.mktemp("run") / "network.safetensors", NAME, trained[1])


@pytest.fixture
def pictures(tmp_path, rng):
    """A folder of two pictures of one size, and a file that is no image."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    pixels = [np.kron(rng.integers(0, 256, (5, 6, 3)), np.ones((4, 4, 1))) for _ in range(2)]
    for name, values in zip(("a", "b"), pixels, strict=True):
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("no image")
    return folder, np.stack(pixels).astype(np.uint8)


@pytest.fixture
def call(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments):
        capsys.readouterr()
        code = main(["ponder", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def expected_maps(trained, pixels):
    """Ponder maps by whole factors, block by block, and the FLOPs."""
    model, variables = trained
    x = ((pixels.astype(np.float32) / 255) - 0.5) * 2
    forward = jax.jit(lambda v, x: model.apply(v, x, method="full_output"))
    output = forward(variables, x)
    total = np.zeros(pixels.shape[:3])
    for block in output.blocks:
        cost = np.asarray(block.ponder_cost)
        factor = pixels.shape[1] // cost.shape[1]
        total += np.kron(cost, np.ones((1, factor, factor)))
    return total, flops_per_image(model, output, image_size=pixels.shape[1:3])


def test_maps_of_a_folder_are_the_sum_over_blocks(call, trained, network, pictures, tmp_path):
    folder, pixels = pictures
    out = tmp_path / "new" / "maps"
    code, text, err = call(folder, "--run", network, "--out", out, "--plain", "--json")
    assert code == 0
    assert "passed over: 1 files ending in .txt" in err
    report = json.loads(text)
    assert report["model"] == NAME
    maps, flops = expected_maps(trained, pixels)
    assert maps.std() > 0.1
    for i, (name, row) in enumerate(zip(("a", "b"), report["images"], strict=True)):
        assert (row["width"], row["height"]) == (24, 20)
        assert row["ponder"] == pytest.approx(maps[i].mean(), rel=1e-4)
        assert row["lowest"] == pytest.approx(maps[i].min(), rel=1e-4)
        assert row["highest"] == pytest.approx(maps[i].max(), rel=1e-4)
        assert row["flops"] == flops[i]
        assert row["plain_flops"] == 2 * an.count_macs("resnet20_cifar10", input_shape=(20, 24, 3))
        assert row["share"] == pytest.approx(row["flops"] / row["plain_flops"])
        with Image.open(out / f"{name}.map.png") as image:
            grey = np.asarray(image)
        scaled = (maps[i] - maps[i].min()) / np.ptp(maps[i])
        np.testing.assert_allclose(grey, 255 * scaled, atol=1)
        with Image.open(out / f"{name}.ponder.png") as image:
            assert (image.size, image.mode) == ((24, 20), "RGB")
        assert row["map"] == str(out / f"{name}.ponder.png")
        assert row["plain_map"] == str(out / f"{name}.map.png")
    # Nothing but the maps is left in the folder.
    assert {p.name for p in out.iterdir()} == {
        f"{name}.{kind}.png" for name in "ab" for kind in ("ponder", "map")
    }


def test_lines_of_a_pipe(call, network, pictures, tmp_path):
    folder, _ = pictures
    code, text, _ = call(folder / "a.png", "--run", network, "--out", tmp_path / "maps")
    assert code == 0
    header, row = [line.split("\t") for line in text.splitlines()]
    assert header == [
        "image", "width", "height", "ponder", "lowest", "highest", "flops", "plain_flops", "share",
        "map",
    ]  # fmt: skip
    values = dict(zip(header, row, strict=True))
    assert values["image"] == str(folder / "a.png")
    assert 3 < float(values["lowest"]) <= float(values["ponder"]) <= float(values["highest"])
    assert 0 < float(values["share"]) < 1.1
    assert not (tmp_path / "maps" / "a.map.png").exists()


@pytest.mark.slow
def test_sizes_keep_the_proportions(call, network, pictures, tmp_path):
    folder, _ = pictures
    flags = ("--run", network, "--out", tmp_path / "maps", "--json")
    # 24x20 pixels become 29x24: the size of no whole number of positions.
    code, text, _ = call(folder / "a.png", *flags, "--size", "29")
    assert code == 0
    assert [(r["width"], r["height"]) for r in json.loads(text)["images"]] == [(29, 24)]
    code, text, _ = call(folder / "a.png", *flags, "--size", "8", "16")
    assert code == 0
    assert [(r["width"], r["height"]) for r in json.loads(text)["images"]] == [(16, 8)]


def test_equal_names_keep_their_endings(call, network, pictures, tmp_path, rng):
    folder, pixels = pictures
    Image.fromarray(pixels[0]).save(folder / "a.bmp")
    out = tmp_path / "maps"
    code, _, _ = call(folder, "--run", network, "--out", out)
    assert code == 0
    assert {p.name for p in out.iterdir()} == {
        "a.bmp.ponder.png", "a.png.ponder.png", "b.ponder.png",
    }  # fmt: skip


@pytest.fixture
def mistakes(tmp_path, pictures, trained, rng):
    """Places that the mistakes name."""
    folder, pixels = pictures
    Image.fromarray(pixels[0][:3]).save(tmp_path / "tiny.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    Image.fromarray(pixels[0]).save(tmp_path / "other" / "a.png")
    mean = InputNormalisation(
        255.0, np.zeros((32, 32, 3), np.float32), np.ones((1, 1, 3), np.float32)
    )
    save(tmp_path / "mean.safetensors", NAME, trained[1], normalisation=mean)
    model = an.create_model("lenet_300_100")
    plain = jax.device_get(model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))
    grey = InputNormalisation(
        255.0, np.zeros((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    )
    save(tmp_path / "plain.safetensors", "lenet_300_100", plain, normalisation=grey, data="mnist")
    return folder


MISTAKES = {
    "no images": (("--run", "RUN", "--out", "maps"), "expects image files or folders"),
    "no image": (("none.png", "--run", "RUN", "--out", "maps"), "none.png does not exist"),
    "not an image": (
        ("text.png", "--run", "RUN", "--out", "maps"), "text.png cannot be read as an image",
    ),
    "the second is none": (
        ("A", "text.png", "--run", "RUN", "--out", "maps"), "text.png cannot be read as an image",
    ),
    "too small": (
        ("tiny.png", "--run", "RUN", "--out", "maps"),
        "image tiny.png is 24x3 pixels (width x height); resnetv1_20_sact_cifar10 has a stride of "
        "4, expected at least 4x4",
    ),
    "made too small": (
        ("A", "--run", "RUN", "--out", "maps", "--size", "2"), "is 2x2 pixels",
    ),
    "no network": (("A", "--out", "maps"), "expects either --run DIR or --model NAME"),
    "two networks": (("A", "--run", "RUN", "--model", "x", "--out", "maps"), "expects either"),
    "half a network": (("A", "--model", NAME, "--out", "maps"), "--weights FILE is missing"),
    "no run": (("A", "--run", "nowhere", "--out", "maps"), "no run in nowhere"),
    "fixed depth": (
        ("A", "--run", "plain.safetensors", "--out", "maps"),
        "--run plain.safetensors has the network 'lenet_300_100', which has no ponder map",
    ),
    "a mean image": (
        ("A", "--run", "mean.safetensors", "--out", "maps"), "subtracts a mean image of 32x32",
    ),
    "no folder": (("A", "--run", "RUN"), "--out is not given"),
    "a file": (("A", "--run", "RUN", "--out", "file"), "--out file is a file"),
    "below a file": (("A", "--run", "RUN", "--out", "file/maps"), "--out file/maps cannot be"),
    "size": (("A", "--run", "RUN", "--out", "maps", "--size", "0"), "--size is (0,)"),
    "sizes": (("A", "--run", "RUN", "--out", "maps", "--size", "4", "4", "4"), "--size is 4 4 4"),
    "equal names": (
        ("A", "other/a.png", "--run", "RUN", "--out", "maps"), "have the same name",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_one_line_and_code_2(call, network, mistakes, tmp_path, case):
    arguments, message = MISTAKES[case]
    places = {"RUN": network, "A": mistakes / "a.png"}
    code, out, err = call(*(places.get(a, a) for a in arguments))
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("adaptive-nets: ")]
    assert len(lines) == 1, err
    assert message in lines[0]
    # All pictures are checked before the first map is written.
    assert not list(tmp_path.glob("maps/*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written(call, network, pictures, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code, _, err = call(pictures[0] / "a.png", "--run", network, "--out", locked)
    assert code == 2
    assert f"--out {locked} cannot be written: permission denied" in err
