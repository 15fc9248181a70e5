import numpy as np
import pytest

from adaptive_nets.data.corruptions import load_official, official_corruptions
from adaptive_nets.data.errors import DamagedDataError, PartialDataError
from adaptive_nets.runtime.errors import UserError

IMAGES = np.random.default_rng(4).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.tile(np.array([3, 0, 9, 7], np.uint8), 5)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "fog.npy", IMAGES)
    np.save(folder / "labels.npy", LABELS)
    return folder


def test_folders_are_found(tmp_path, folder):
    assert official_corruptions(tmp_path, "cifar10") == folder
    assert official_corruptions(tmp_path, "cifar100") is None
    (tmp_path / "CIFAR-100-C").mkdir()
    assert official_corruptions(tmp_path, "cifar100") is None
    np.save(tmp_path / "CIFAR-100-C" / "labels.npy", LABELS)
    assert official_corruptions(tmp_path, "cifar100") == tmp_path / "CIFAR-100-C"
    assert official_corruptions(tmp_path / "none", "cifar10") is None
    with pytest.raises(UserError, match=r"'cifar-10' .* did you mean 'cifar10'\?"):
        official_corruptions(tmp_path, "cifar-10")  # pyright: ignore[reportArgumentType]


def test_severities_follow_each_other(folder):
    for severity in range(1, 6):
        images, labels = load_official(folder, "fog", severity)
        np.testing.assert_array_equal(images, IMAGES[4 * severity - 4 : 4 * severity])
        assert images.dtype == np.uint8
        assert not images.flags.writeable
        np.testing.assert_array_equal(labels, [3, 0, 9, 7])
        assert labels.dtype == np.int32


def test_unknown_names(folder):
    with pytest.raises(UserError, match=r"did you mean 'fog'\?"):
        load_official(folder, "fogg", 1)
    with pytest.raises(UserError, match="severity 0"):
        load_official(folder, "fog", 0)


def test_missing_files(folder):
    with pytest.raises(PartialDataError, match=r"snow\.npy is missing"):
        load_official(folder, "snow", 1)
    (folder / "labels.npy").unlink()
    with pytest.raises(PartialDataError, match=r"labels\.npy is missing"):
        load_official(folder, "fog", 1)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.astype(np.float32), "float32 of shape"),
        (IMAGES[:, :28], r"shape \(20, 28, 32, 3\), expected uint8"),
        (IMAGES[0], r"shape \(32, 32, 3\)"),
        (IMAGES[:18], "18 images, expected a multiple of 5"),
        (np.array([{}]), "cannot be read as a NumPy file"),
    ],
)
def test_images_of_another_kind(folder, images, message):
    np.save(folder / "fog.npy", images)
    with pytest.raises(DamagedDataError, match=message) as caught:
        load_official(folder, "fog", 1)
    assert str(folder / "fog.npy") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:15], r"shape \(15,\), expected integers of shape \(20,\)"),
        (LABELS / 1, "float64"),
        (np.arange(20), "differ between severities"),
    ],
)
def test_labels_of_another_kind(folder, labels, message):
    np.save(folder / "labels.npy", labels)
    with pytest.raises(DamagedDataError, match=message):
        load_official(folder, "fog", 1)


def test_damaged_files(folder):
    file = folder / "fog.npy"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:60], whole[:3], b"", b"PK" + whole[2:]):
        file.write_bytes(content)
        with pytest.raises(DamagedDataError, match="fetch the official file again") as caught:
            load_official(folder, "fog", 1)
        assert "\n" not in str(caught.value)
    file.unlink()
    file.mkdir()
    with pytest.raises(DamagedDataError, match="is a directory"):
        load_official(folder, "fog", 1)
