import shutil
import subprocess
import sys

import numpy as np
import pytest

from adaptive_nets.data import embedded as embedded_room
from adaptive_nets.data import load, lookup, verify
from adaptive_nets.data.embedded import FOLDER, find_embedded

# What the committed records of the official files carry, wherever those were read from.
FINGERPRINT = "98dce34051749538ca42a4b4ff80c2f518ccc93277642b1ec64821a507c045d6"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the embedded files in the place of the real ones."""
    shutil.copytree(FOLDER / "mnist", tmp_path / "mnist")
    monkeypatch.setattr(
        "adaptive_nets.data.sources.find_embedded", lambda info: find_embedded(info, tmp_path)
    )
    monkeypatch.setattr(
        "adaptive_nets.data.check.find_embedded", lambda info: find_embedded(info, tmp_path)
    )
    return tmp_path / "mnist"


def test_loads_without_any_other_files():
    data = load("mnist")
    assert (data.source, data.complete) == ("embedded", True)
    assert data.location == str(FOLDER / "mnist")
    assert data.train is not None
    assert data.test is not None
    assert data.train.images.shape == (60000, 28, 28, 1)
    assert data.test.images.shape == (10000, 28, 28, 1)
    assert (data.train.images.dtype, data.train.labels.dtype) == (np.uint8, np.int32)
    assert data.fingerprint == FINGERPRINT
    only = load("mnist", source="embedded", splits=("test",))
    assert only.train is None
    assert only.fingerprint != data.fingerprint


def test_the_same_files_from_a_folder_have_the_same_fingerprint(root):
    shutil.copytree(FOLDER / "mnist", root / "mnist")
    data = load("mnist", root=root)
    assert (data.source, data.fingerprint) == ("files", FINGERPRINT)
    files, embedded = verify("mnist", root)
    assert (files.source, embedded.source) == ("files", "embedded")
    assert files.fingerprint == embedded.fingerprint == FINGERPRINT


def test_only_mnist_is_embedded():
    assert embedded_room.find_embedded(lookup("fashion_mnist")) is None


def test_missing_files_name_the_remedy(copied, complains):
    (copied / "t10k-labels-idx1-ubyte.gz").unlink()
    complains(lambda: load("mnist"), "3 of 4", copied, "install adaptive-nets again", "--data-dir")
    (finding,) = verify("mnist")
    assert (finding.state, finding.source) == ("damaged", "embedded")
    shutil.rmtree(copied)
    complains(lambda: load("mnist", source="embedded"), "0 of 4")


def test_damaged_files_are_named(copied, complains):
    labels = copied / "train-labels-idx1-ubyte.gz"
    content = labels.read_bytes()
    labels.write_bytes(content[:-20])
    complains(lambda: load("mnist"), labels)


def test_terms_come_with_the_files():
    terms = (FOLDER / "mnist" / "TERMS.md").read_text()
    for path in (FOLDER / "mnist").glob("*.gz"):
        assert f"{path.stat().st_size}" in terms
        assert path.name in terms


def test_imports_little():
    # What the package itself imports is none of this room's business.
    code = (
        "import sys, adaptive_nets; before = set(sys.modules)\n"
        "import adaptive_nets.data as data; data.load('mnist')\n"
        "heavy = {'jax', 'tensorflow_datasets', 'tensorflow', 'PIL'}\n"
        "print(sorted(heavy & sys.modules.keys() - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
