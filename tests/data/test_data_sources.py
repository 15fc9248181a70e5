import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from privileges import without_privileges

from adaptive_nets.data import CATALOGUE, Split, data_root, load, random_labels, survey
from adaptive_nets.data.splits import digest


def test_root_is_flag_then_variable_then_cache(monkeypatch, tmp_path, complains):
    assert data_root() == Path.home() / ".cache" / "adaptive_nets"
    for name in ("flag", "variable"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("ADAPTIVE_NETS_DATA", str(tmp_path / "variable"))
    assert data_root() == tmp_path / "variable"
    assert data_root(tmp_path / "flag") == tmp_path / "flag"
    assert data_root("") == tmp_path / "variable"
    monkeypatch.setenv("ADAPTIVE_NETS_DATA", "")
    assert data_root() == Path.home() / ".cache" / "adaptive_nets"
    (tmp_path / "home").mkdir()
    assert data_root("~") == tmp_path / "home"


def test_chosen_root_has_to_be_a_folder(monkeypatch, tmp_path, complains):
    file = tmp_path / "file"
    file.touch()
    for call in (data_root, lambda root: load("mnist", root=root), survey):
        complains(lambda call=call: call(tmp_path / "none"), "--data-dir", "none does not exist")
        complains(lambda call=call: call(file), "--data-dir", "file is a file")
        complains(lambda call=call: call(file / "below"), "--data-dir", file / "below")
    complains(lambda: data_root("~no_such_user_at_all/data"), "--data-dir", "cannot be read")
    complains(lambda: data_root("a\0b"), "--data-dir")
    monkeypatch.setenv("ADAPTIVE_NETS_DATA", str(tmp_path / "none"))
    complains(lambda: load("mnist"), "ADAPTIVE_NETS_DATA", "none does not exist")
    complains(lambda: load("mnist", source="embedded"), "ADAPTIVE_NETS_DATA")


def test_unknown_words(root, complains):
    complains(lambda: load("mnits", root=root), "'mnits'", "did you mean 'mnist'")
    complains(lambda: load("mnist", root=root, source="tdfs"), "'tdfs'", "'tfds'")
    complains(lambda: load("mnist", root=root, splits=("tset",)), "'tset'", "'test'")
    complains(
        lambda: load("mnist", root=root, splits=()),
        "splits of mnist is empty; expected train, test or both",
    )
    complains(
        lambda: load("cifar10", root=root, source="embedded"),
        "only mnist, digits and four_shapes are embedded",
    )


def test_nothing_found_says_what_to_put_where(root, complains):
    for name, file, folder in (
        ("cifar10", "data_batch_1.bin", "cifar-10-batches-bin"),
        ("fashion_mnist", "train-images-idx3-ubyte.gz", "fashion_mnist"),
        ("notmnist", "t10k-labels-idx1-ubyte", "notmnist"),
    ):
        command = f"adaptive-nets data import {name} PATH"
        complains(lambda n=name: load(n, root=root), name, file, root / folder, command)
        complains(lambda n=name: load(n, root=root, source="tfds"), command, root)
    complains(lambda: load("mnist", root=root, source="files"), "mnist", root)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("folder", ["tiny", "Tiny/raw"])
def test_files_in_either_folder_packed_or_not(tiny, root, folder, packed):
    tiny.write(root / folder, packed=packed)
    data = load("tiny", root=root)
    assert (data.source, data.location, data.complete) == ("files", str(root / folder), True)
    assert data.class_names == ("a", "b", "c")
    assert data.num_classes == 3
    for name, split in (("train", data.train), ("test", data.test)):
        assert split is not None
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(split.images, tiny.images[name])
        np.testing.assert_array_equal(split.labels, tiny.labels[name])
    test = load("tiny", root=root, splits="test")
    assert test.train is None
    assert test.test is not None


def test_partial_set_is_an_error(tiny, root, complains):
    folder = tiny.write(root / "tiny")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    for kwargs in ({}, {"splits": ("train",)}, {"source": "files"}):
        complains(
            lambda kw=kwargs: load("tiny", root=root, **kw),
            "t10k-labels-idx1-ubyte",
            "missing",
            folder,
            "3 of 4",
        )
    # Another whole copy makes up for it.
    tiny.write(root / "Tiny" / "raw")
    assert load("tiny", root=root).location == str(root / "Tiny" / "raw")


def test_partial_mnist_does_not_fall_back_to_the_embedded_digits(root, complains):
    (root / "mnist").mkdir()
    (root / "mnist" / "train-images.idx3-ubyte.gz").touch()
    complains(lambda: load("mnist", root=root), "train-labels-idx1-ubyte", root / "mnist")


def test_a_folder_of_images_is_not_the_official_set(root, complains):
    (root / "cifar100" / "train" / "apple").mkdir(parents=True)
    complains(lambda: load("cifar100", root=root), "nothing found")


def test_damaged_files_are_named(tiny, root, complains):
    folder = tiny.write(root / "tiny")
    labels = folder / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + b"\x03")
    complains(lambda: load("tiny", root=root), labels, "label 3", "expected 0 to 2")
    labels.write_bytes(content[:-1])
    complains(lambda: load("tiny", root=root), labels, "truncated")
    labels.unlink()
    labels.mkdir()
    complains(lambda: load("tiny", root=root), labels.name, "missing", folder)


def test_optional_split(tiny, root, monkeypatch, complains):
    info = dataclasses.replace(tiny.info, optional_splits=("train",))
    monkeypatch.setitem(CATALOGUE, "tiny", info)
    folder = tiny.write(root / "tiny")
    (folder / "train-images-idx3-ubyte").unlink()
    complains(lambda: load("tiny", root=root, splits=("test",)), "train-images", "missing")
    (folder / "train-labels-idx1-ubyte").unlink()
    data = load("tiny", root=root, splits=("test",))
    assert data.train is None
    assert data.complete
    complains(lambda: load("tiny", root=root), "train split is not in", folder, "request only test")


def test_known_digest_is_checked(tiny, root, monkeypatch, complains):
    tiny.write(root / "tiny")
    split = Split(images=tiny.images["test"], labels=tiny.labels["test"])
    for value, good in ((digest(split), True), ("0" * 64, False)):
        info = dataclasses.replace(tiny.info, digests={"test": value})
        monkeypatch.setitem(CATALOGUE, "tiny", info)
        if good:
            load("tiny", root=root)
        else:
            complains(lambda: load("tiny", root=root), "test split", root / "tiny", value)


def test_files_of_another_set_are_noticed(tiny, root, monkeypatch, complains):
    import hashlib

    folder = tiny.write(root / "tiny")
    path = folder / "t10k-images-idx3-ubyte"
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    file = dataclasses.replace(tiny.info.files[0], md5=md5)
    form = dataclasses.replace(tiny.info.forms[0], files=(file,))
    other = dataclasses.replace(tiny.info, name="other", stored_as="other", forms=(form,))
    monkeypatch.setitem(CATALOGUE, "other", other)
    complains(lambda: load("tiny", root=root), path, "file of other")


def test_digest_ignores_order_and_nothing_else():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 4, 3, 1), dtype=np.uint8)
    labels = np.arange(6, dtype=np.int32)
    reference = digest(Split(images, labels))
    order = random.permutation(6)
    assert digest(Split(images[order], labels[order])) == reference
    changed = images.copy()
    changed[2, 1, 1] ^= 1
    others = [
        Split(changed, labels),
        Split(images, labels[::-1].copy()),
        Split(images[:5], labels[:5]),
        Split(images.reshape(6, 3, 4, 1), labels),
    ]
    assert len({reference, *map(digest, others)}) == 5
    assert images.flags.writeable
    assert not others[0].images.flags.writeable


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_folders_and_files_without_permission(tiny, complains):
    base = Path(tempfile.mkdtemp())  # tmp_path is closed to others as a whole.
    try:
        base.chmod(0o755)
        folder = tiny.write(base / "tiny")
        load("tiny", root=base)  # Imports everything while that is still allowed.
        hidden = folder / "t10k-labels-idx1-ubyte"
        for closed, named in ((hidden, hidden), (folder, folder), (base, base)):
            mode = closed.stat().st_mode
            closed.chmod(0)
            with without_privileges():
                for name in ("tiny", "mnist") if closed == base else ("tiny",):
                    complains(
                        lambda n=name: load(n, root=base), named, "cannot be read", "permission"
                    )
            closed.chmod(mode)
    finally:
        shutil.rmtree(base)


def test_random_labels_are_the_legacy_stream(complains):
    labels = random_labels(np.zeros(1000, np.int64), num_classes=10)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, np.random.RandomState(74632).choice(10, 1000))
    assert set(labels.tolist()) == set(range(10))
    other = random_labels(np.zeros(1000), num_classes=10, seed=1)
    assert (other != labels).any()
    complains(lambda: random_labels(labels, num_classes=0), "num_classes is 0; expected at least 1")
