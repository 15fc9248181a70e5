"""Catalogue entries against the official files."""

import dataclasses
import gzip
import hashlib
import shutil

import numpy as np
import pytest

from adaptive_nets.data import CATALOGUE, import_dataset, load, survey, verify
from adaptive_nets.data.official import find_official, read_official

MNIST_COUNTS = {
    "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
    "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
}
MEANS = {
    "cifar10": (0.49139968, 0.48215841, 0.44653091),
    "cifar100": (0.50707516, 0.48654887, 0.44091784),
}
DEVIATIONS = {
    "cifar10": (0.24703223, 0.24348513, 0.26158784),
    "cifar100": (0.26733429, 0.25643846, 0.27615047),
}


def class_counts(split, num_classes):
    return tuple(np.bincount(split.labels, minlength=num_classes).tolist())


@pytest.mark.data("mnist")
def test_mnist(official_root):
    data = load("mnist", root=official_root("mnist"))
    assert (data.source, data.complete) == ("files", True)
    assert data.train is not None
    assert data.test is not None
    assert data.train.images.shape == (60000, 28, 28, 1)
    assert data.test.images.shape == (10000, 28, 28, 1)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    for split, expected in ((data.train, MNIST_COUNTS["train"]), (data.test, MNIST_COUNTS["test"])):
        assert class_counts(split, 10) == expected
    assert abs(data.train.images.mean() / 255 - 0.1306604762738429) < 1e-12


@pytest.mark.data("mnist")
def test_mnist_sums_hold_packed_and_unpacked(official_root, tmp_path, complains):
    official = official_root("mnist") / "mnist"
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    expected = {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    }
    for name, md5 in expected.items():
        content = (official / name).read_bytes()
        assert hashlib.md5(content).hexdigest() == md5
        (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    raw = load("mnist", root=tmp_path)
    assert raw.location == str(folder)
    assert raw.fingerprint == load("mnist", root=official.parent).fingerprint
    labels = folder / "t10k-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[-1] ^= 1
    labels.write_bytes(content)
    known = "27ae3e4e09519cfbb04c329615203637"
    complains(lambda: load("mnist", root=tmp_path), labels, "md5", known)
    labels.unlink()
    complains(lambda: load("mnist", root=tmp_path), labels.name, "missing", folder)
    # MNIST's files bear the same names as those of Fashion-MNIST.
    (tmp_path / "FashionMNIST").mkdir()
    shutil.copytree(official, tmp_path / "FashionMNIST" / "raw")
    complains(lambda: load("fashion_mnist", root=tmp_path), "file of mnist", "FashionMNIST/raw")


@pytest.mark.data("notmnist")
def test_notmnist_has_its_test_part_only(official_root, root, complains):
    source = official_root("notmnist")
    complains(lambda: load("notmnist", root=source), "train split is not in", source / "notmnist")
    data = load("notmnist", root=source, splits=("test",))
    assert data.train is None
    assert data.test is not None
    assert data.complete
    assert class_counts(data.test, 10) == (1000,) * 10
    path = import_dataset("notmnist", source, root)
    prepared = load("notmnist", root=root, splits=("test",))
    assert (prepared.source, prepared.location) == ("tfds", str(path))
    assert prepared.fingerprint == data.fingerprint
    assert prepared.test is not None
    np.testing.assert_array_equal(prepared.test.images, data.test.images)
    np.testing.assert_array_equal(prepared.test.labels, data.test.labels)


# Unpacking a training set of CIFAR takes a minute; made-up files test the forms of CIFAR
# in test_data_cifar.py.
_CIFAR10 = pytest.mark.data("cifar10")
_CIFAR100 = (pytest.mark.data("cifar100"), pytest.mark.slow)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cifar10", marks=(_CIFAR10, pytest.mark.slow)),
        pytest.param("cifar100", marks=_CIFAR100),
    ],
)
def test_cifar(official_root, name):
    info = CATALOGUE[name]
    root = official_root(name)
    data = load(name, root=root)
    assert data.complete
    assert data.train is not None
    assert data.test is not None
    assert data.location.endswith(info.forms[0].folders[0])
    each = len(data.train) // info.num_classes
    assert class_counts(data.train, info.num_classes) == (each,) * info.num_classes
    assert class_counts(data.test, info.num_classes) == (each // 5,) * info.num_classes
    # Exact sums, because a mean of a million float32 values is not good to eight digits.
    pixels = data.train.images.reshape(-1, 3)
    values = np.arange(256) / 255
    for channel in range(3):
        share = np.bincount(pixels[:, channel], minlength=256) / len(pixels)
        mean = share @ values
        assert abs(mean - MEANS[name][channel]) < 1e-8
        assert abs(np.sqrt(share @ (values - mean) ** 2) - DEVIATIONS[name][channel]) < 1e-8
    binary, python = (
        find_official(dataclasses.replace(info, forms=(form,)), root) for form in info.forms
    )
    assert binary is not None
    assert python is not None
    assert (binary.form.kind, python.form.kind) == ("binary", "python")
    for split, part in read_official(info, python, ("train", "test")).items():
        of_binary = getattr(data, split)
        np.testing.assert_array_equal(part.images, of_binary.images)
        np.testing.assert_array_equal(part.labels, of_binary.labels)


@pytest.mark.slow
@pytest.mark.data("cifar100")
def test_cifar100_coarse(official_root):
    root = official_root("cifar100")
    coarse = load("cifar100_coarse", root=root, splits=("test",))
    fine = load("cifar100", root=root, splits=("test",))
    assert coarse.test is not None
    assert fine.test is not None
    assert coarse.num_classes == len(coarse.class_names) == 20
    assert class_counts(coarse.test, 20) == (500,) * 20
    # Each fine class belongs to one group, and each group has five.
    pairs = set(zip(fine.test.labels.tolist(), coarse.test.labels.tolist(), strict=True))
    assert len(pairs) == 100
    name = dict(pairs)
    fish = {fine.class_names[k] for k, group in name.items() if coarse.class_names[group] == "fish"}
    assert fish == {"aquarium_fish", "flatfish", "ray", "shark", "trout"}


@pytest.mark.parametrize(
    ("name", "key", "file"),
    [
        pytest.param("cifar10", "label", "cifar-10-batches-bin/batches.meta.txt", marks=_CIFAR10),
        *(
            pytest.param("cifar100", key, f"cifar-100-binary/{file}.txt", marks=_CIFAR100)
            for key, file in (
                ("label", "fine_label_names"),
                ("coarse_label", "coarse_label_names"),
            )
        ),
    ],
)
def test_class_names_are_the_files_own(official_root, name, key, file):
    names = (official_root(name) / file).read_text().split()
    assert CATALOGUE[name].label_names[key] == tuple(names)


@pytest.mark.data("mnist")
def test_check_of_mnist(official_root):
    root = official_root("mnist")
    finding = verify("mnist", root)[0]
    assert (finding.state, finding.source, finding.form) == ("ok", "files", "idx")
    assert finding.class_counts == MNIST_COUNTS
    assert "4 of 4 files" in finding.message
    listed = next(found for found in survey(root) if found.name == "mnist")
    assert (listed.state, listed.location) == ("ok", finding.location)
