import hashlib
import pickle

import numpy as np
import pytest
from packing import pack_cifar_pickle

from adaptive_nets.data.cifar import read_cifar_binary, read_cifar_python

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
COARSE, FINE = [1, 0, 19, 7], [99, 3, 0, 42]


def binary_file(images, *labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    columns = [np.array(column, np.uint8)[:, None] for column in labels]
    return np.concatenate([*columns, planes], axis=1).tobytes()


def python_file():
    return pack_cifar_pickle(IMAGES, {b"coarse_labels": COARSE, b"fine_labels": FINE})


KEYS = ("coarse_labels", "fine_labels")


def test_both_forms_give_the_same(tmp_path):
    (tmp_path / "b").write_bytes(binary_file(IMAGES, COARSE, FINE))
    (tmp_path / "p").write_bytes(python_file())
    md5 = hashlib.md5(python_file()).hexdigest()
    for images, labels in (
        read_cifar_binary(tmp_path / "b", num_labels=2, count=4),
        read_cifar_python(tmp_path / "p", label_keys=KEYS, count=4, md5=md5),
    ):
        assert images.dtype == labels.dtype == np.uint8
        np.testing.assert_array_equal(images, IMAGES)
        np.testing.assert_array_equal(labels, np.transpose([COARSE, FINE]))


def test_binary_refuses_other_sizes_and_sums(tmp_path, complains):
    path = tmp_path / "data_batch_1.bin"
    whole = binary_file(IMAGES, FINE)
    for content in (whole[:-1], whole + b"\0", whole[3073:], b""):
        path.write_bytes(content)
        complains(
            lambda: read_cifar_binary(path, num_labels=1, count=4),
            path,
            f"{len(content)} bytes",
            "expected 12292",
        )
    path.write_bytes(whole[:-1])
    complains(lambda: read_cifar_binary(path, num_labels=1), path, "a multiple of 3073")
    path.write_bytes(whole)
    complains(
        lambda: read_cifar_binary(path, num_labels=1, count=4, md5="0" * 32),
        path,
        hashlib.md5(whole).hexdigest(),
    )
    complains(lambda: read_cifar_binary(tmp_path / "none", num_labels=1), "none does not exist")


class Malice:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_refuses_malicious_pickles(tmp_path, complains, protocol):
    path, marker = tmp_path / "data_batch_1", tmp_path / "ran"
    for value in (Malice(marker), {"data": Malice(marker), "labels": [1]}):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        complains(
            lambda: read_cifar_python(path, label_keys=("labels",)), path, "refused", "posix.mkdir"
        )
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "numpy.load"),
        (b"\x80\x02\x82\x01.", "not a whole pickle"),
        (b"cnumpy\ndtype.__class__\n.", "numpy.dtype.__class__"),
    ],
)
def test_refuses_other_ways_to_name_things(tmp_path, complains, content, name):
    path = tmp_path / "data_batch_1"
    path.write_bytes(content)
    complains(lambda: read_cifar_python(path, label_keys=("labels",)), path, name)


def test_python_refuses_damage(tmp_path, complains):
    path = tmp_path / "train"
    whole = python_file()

    def read(**kwargs):
        return read_cifar_python(path, label_keys=KEYS, **kwargs)

    for content in (b"", b"\x80", whole[:-1], whole[:3000], b"\xff" * 100):
        path.write_bytes(content)
        complains(read, path, "not a whole pickle")
    path.write_bytes(whole)
    complains(lambda: read(count=5), path, "4 examples, expected 5")
    complains(lambda: read(md5="0" * 32), path, "md5")
    for value in (
        [],
        {b"data": 1},
        {b"data": 1, b"coarse_labels": [1], b"fine_labels": [1]},
        {"data": 1, "coarse_labels": [], "fine_labels": []},
    ):
        path.write_bytes(pickle.dumps(value, protocol=4))
        complains(read, path)
    path.write_bytes(
        pack_cifar_pickle(IMAGES, {b"coarse_labels": COARSE, b"fine_labels": FINE[1:]})
    )
    complains(read, path, "expected uint8 data")
    path.write_bytes(whole.replace(b"T\x02\0\0\0u1", b"T\x02\0\0\0f8"))
    complains(read, path, "unsigned bytes")
