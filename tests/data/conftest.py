"""Tiny sets written by the tests themselves, and the official files where they are at hand."""

from __future__ import annotations

import fcntl
import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from packing import pack_idx
from photographs import built, folders  # noqa: F401

from adaptive_nets.data import CATALOGUE, DatasetInfo, Form, OfficialFile

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
TEST_DATA = "ADAPTIVE_NETS_TEST_DATA"  # Names a data root that is laid out already.


@dataclass(frozen=True)
class Tiny:
    """A set of 30 + 10 images in MNIST's layout that is in the catalogue for one test."""

    info: DatasetInfo
    images: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]

    def write(self, folder: Path, *, packed: bool = False) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for split, prefix in (("train", "train"), ("test", "t10k")):
            parts = {
                f"{prefix}-images-idx3-ubyte": self.images[split][..., 0],
                f"{prefix}-labels-idx1-ubyte": self.labels[split],
            }
            for name, array in parts.items():
                content = pack_idx(array)
                if packed:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(content))
                else:
                    (folder / name).write_bytes(content)
        return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Tiny:
    random = np.random.default_rng(7)
    counts = {"train": 30, "test": 10}
    files = tuple(
        OfficialFile(split=split, holds=holds, names=(f"{prefix}-{holds}-idx{n}-ubyte",), count=c)
        for split, prefix, c in (("train", "train", 30), ("test", "t10k", 10))
        for holds, n in (("images", 3), ("labels", 1))
    )
    info = DatasetInfo(
        name="tiny",
        title="Tiny",
        image_shape=(6, 5, 1),
        label_names={"label": ("a", "b", "c")},
        splits=counts,
        forms=(Form(kind="idx", folders=("tiny", "Tiny/raw"), files=files),),
        licence="none",
    )
    monkeypatch.setitem(CATALOGUE, "tiny", info)
    return Tiny(
        info,
        {s: random.integers(0, 256, (n, 6, 5, 1), dtype=np.uint8) for s, n in counts.items()},
        {s: random.integers(0, 3, n).astype(np.int32) for s, n in counts.items()},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root whose name has characters special to patterns and shells."""
    folder = tmp_path / "data [0:1] root"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def no_chosen_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True, scope="session")
def no_tensorflow() -> Iterator[None]:
    yield
    assert "tensorflow" not in sys.modules


def _lay_out(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # Another run may be laying out the same set.
    with open(folder / f".lock-{name}", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command = [sys.executable, str(SHARED / "unpack.py"), str(folder), name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


@pytest.fixture(autouse=True, scope="session")
def _layouts(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Path]]]:
    """Begins to lay out what the selected tests name in their marks, while others run.

    A training set of CIFAR takes a minute to unpack, so what is there is kept between runs.
    """
    folder = REPOSITORY / "build" / "official"
    selected = [item for item in request.session.items if not item.get_closest_marker("skip")]
    marks = [item.get_closest_marker("data") for item in selected]
    names = dict.fromkeys(name for mark in marks if mark for name in mark.args)
    if os.environ.get(TEST_DATA) or not (SHARED / "unpack.py").is_file():
        names = {}
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(_lay_out, name, folder) for name in names}


@pytest.fixture(scope="session")
def official_root(_layouts: dict[str, Future[Path]]) -> Callable[[str], Path]:
    """Returns a function that finds the data root with the official files of the marked set."""

    def wait_for(name: str) -> Path:
        if chosen := os.environ.get(TEST_DATA):
            return Path(chosen)
        if not (SHARED / "unpack.py").is_file():
            pytest.skip("the official files are absent: no ../shared/data beside the repository")
        return _layouts[name].result()

    return wait_for
