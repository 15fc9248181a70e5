import dataclasses
import os
import resource
import shutil
import socket
import time
from collections import namedtuple

import numpy as np
import pytest
from privileges import without_privileges

from adaptive_nets.data import (
    CATALOGUE,
    AlreadyImportedError,
    Form,
    OfficialFile,
    import_dataset,
    load,
    preparation,
)
from adaptive_nets.runtime.errors import UserError


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


@pytest.fixture
def official(tiny, tmp_path):
    return tiny.write(tmp_path / "official")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args):
        raise AssertionError(f"connected to {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_import_is_quiet_and_reports_progress(tiny, root, official, capfd):
    steps = []
    path = import_dataset("tiny", official, root, progress=lambda *step: steps.append(step))
    assert path == root / "tfds" / "tiny" / "1.0.0"
    assert steps[0] == ("reading the official files", 0, 2)
    assert steps[-1] == ("done", 40, 40)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(root / "tfds") == ["tiny"]


def test_path_may_be_a_root_and_the_root_is_made(tiny, tmp_path):
    tiny.write(tmp_path / "a" / "Tiny" / "raw")
    path = import_dataset("tiny", tmp_path / "a", tmp_path / "new" / "root")
    assert load("tiny", root=tmp_path / "new" / "root").location == str(path)


def test_second_import_says_so(tiny, root, official):
    path = import_dataset("tiny", official, root)
    before = {file: file.stat().st_mtime_ns for file in files_below(root)}
    with pytest.raises(AlreadyImportedError, match="is already imported") as caught:
        import_dataset("tiny", official, root)
    assert str(path) in str(caught.value)
    assert before == {file: file.stat().st_mtime_ns for file in files_below(root)}


def test_damaged_import_is_replaced(tiny, root, official):
    path = import_dataset("tiny", official, root)
    (path / "features.json").unlink()
    with pytest.raises(UserError):
        load("tiny", root=root)
    assert import_dataset("tiny", official, root) == path
    assert load("tiny", root=root).complete
    assert os.listdir(root / "tfds") == ["tiny"]


def test_optional_split_can_be_added(tiny, root, official, monkeypatch, tmp_path):
    info = dataclasses.replace(tiny.info, optional_splits=("train",))
    monkeypatch.setitem(CATALOGUE, "tiny", info)
    shutil.copytree(official, tmp_path / "test only")
    for file in (tmp_path / "test only").glob("train*"):
        file.unlink()
    import_dataset("tiny", tmp_path / "test only", root)
    assert load("tiny", root=root, splits=("test",)).complete
    with pytest.raises(UserError, match="train split is not in"):
        load("tiny", root=root)
    import_dataset("tiny", official, root)
    assert load("tiny", root=root).train is not None
    with pytest.raises(AlreadyImportedError):
        import_dataset("tiny", tmp_path / "test only", root)


def test_wrong_paths(tiny, root, official, tmp_path, complains):
    empty = tmp_path / "empty"
    empty.mkdir()
    file = official / "train-images-idx3-ubyte"
    complains(lambda: import_dataset("tyni", official, root), "'tyni'", "'tiny'")
    complains(lambda: import_dataset("tiny", tmp_path / "no", root), "PATH", "no does not exist")
    complains(lambda: import_dataset("tiny", "~no_such_user/a", root), "PATH ~no_such_user/a")
    complains(lambda: import_dataset("tiny", "a\0b", root), "PATH")
    complains(lambda: import_dataset("tiny", file, root), "PATH", file, "is a file")
    complains(lambda: import_dataset("tiny", empty, root), "none of its official files", empty)
    complains(lambda: import_dataset("tiny", official, file), "--data-dir", "is a file")
    complains(lambda: import_dataset("tiny", official, file / "x"), file)
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    complains(lambda: import_dataset("tiny", official, root), file, "truncated")
    file.unlink()
    complains(lambda: import_dataset("tiny", official, root), "train-images", "missing", official)
    assert files_below(root) == []


@pytest.mark.parametrize("step", ["reading the official files", "verifying the written files"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_interruption_leaves_nothing(tiny, root, official, step, error):
    def interrupt(what, done, total):
        if what == step:
            raise error

    with pytest.raises(error):
        import_dataset("tiny", official, root, progress=interrupt)
    assert files_below(root) == []
    import_dataset("tiny", official, root)


def test_killed_import_leaves_no_set_and_is_swept_up(tiny, root, official, complains):
    path = import_dataset("tiny", official, root)
    remains = [root / "tfds" / f".importing-tiny-{age}" for age in ("old", "new")]
    for folder in remains:
        shutil.copytree(path, folder / "tiny" / "1.0.0")
    shutil.rmtree(root / "tfds" / "tiny")
    complains(lambda: load("tiny", root=root), "nothing found")
    os.utime(remains[0], (time.time() - 48 * 3600,) * 2)
    import_dataset("tiny", official, root)
    assert [folder.exists() for folder in remains] == [False, True]


def test_full_disk(tiny, root, official, monkeypatch, complains):
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(preparation.shutil, "disk_usage", lambda path: usage(100, 99, 1))
        complains(lambda: import_dataset("tiny", official, root), root, "no space left")
    assert files_below(root) == []

    def fail(*args):
        raise RuntimeError("write() failed: No space left on device; writing\nat byte 0")

    with monkeypatch.context() as patch:
        patch.setattr(preparation, "_run_quietly", fail)
        complains(lambda: import_dataset("tiny", official, root), root, "no space left")
    assert files_below(root) == []


def test_writing_that_fails_half_way(tiny, root, official, complains):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
    try:
        complains(lambda: import_dataset("tiny", official, root), root, "cannot be written")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert files_below(root) == []


def test_content_that_was_written_wrong_is_noticed(tiny, root, official, monkeypatch, complains):
    real = preparation.read_prepared

    def read(*args):
        splits = real(*args)
        images = splits["test"].images.copy()
        images[0] ^= 1
        return splits | {"test": type(splits["test"])(images, splits["test"].labels)}

    monkeypatch.setattr(preparation, "read_prepared", read)
    complains(
        lambda: import_dataset("tiny", official, root), "test split", "differs from its source"
    )
    assert files_below(root) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can drop privileges")
def test_no_permission_to_write(tiny, tmp_path_factory, complains):
    import tempfile
    from pathlib import Path

    base = Path(tempfile.mkdtemp())
    try:
        base.chmod(0o755)
        tiny.write(base / "official")
        import_dataset("tiny", base / "official", base / "first")  # Imports everything.
        with without_privileges():
            complains(
                lambda: import_dataset("tiny", base / "official", base / "second"),
                base / "second",
                "permission denied",
            )
        assert not (base / "second").exists()
    finally:
        shutil.rmtree(base)


def test_both_kinds_of_labels_are_stored_once(root, tmp_path, monkeypatch):
    random = np.random.default_rng(5)
    rows = random.integers(0, 20, (7, 2 + 3072), dtype=np.uint8)
    files = tuple(
        OfficialFile(split=split, holds="both", names=(f"{split}.bin",), count=7)
        for split in ("train", "test")
    )
    for file in files:
        (tmp_path / file.names[0]).write_bytes(rows.tobytes())
    for name in ("cifar100", "cifar100_coarse"):
        info = dataclasses.replace(
            CATALOGUE[name],
            forms=(Form(kind="binary", folders=("cifar-100-binary",), files=files),),
            splits={"train": 7, "test": 7},
            digests={},
        )
        monkeypatch.setitem(CATALOGUE, name, info)
    path = import_dataset("cifar100_coarse", tmp_path, root)
    assert path == root / "tfds" / "cifar100" / "1.0.0"
    with pytest.raises(AlreadyImportedError):
        import_dataset("cifar100", tmp_path, root)
    for name, column in (("cifar100_coarse", 0), ("cifar100", 1)):
        data = load(name, root=root)
        assert data.train is not None
        np.testing.assert_array_equal(data.train.labels, rows[:, column])
