"""The route of one image, as docs/architecture.md tells it, is the one that a run takes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jax
import numpy as np

import adaptive_nets
from experiments.__main__ import main

ROOT = Path(adaptive_nets.__file__).parent.parent
ID = "sparse_vd.table1.lenet-300-100-original"
ALIASES = {
    "experiments/papers/PAPER/experiment.py": "experiments/papers/sparse_vd/experiment.py",
    "adaptive_nets/models/FAMILY.py": "adaptive_nets/models/mlp.py",
}
# Files that hold images or hand them on, as the text below the table says.
BESIDE = {
    "adaptive_nets/data/splits.py",
    "adaptive_nets/training/feed.py",
    "adaptive_nets/training/batches.py",
    "adaptive_nets/training/distributed.py",
    "adaptive_nets/training/task.py",
}
CONTAINERS = ("Dataset", "Split", "DeviceSplit")


def documented() -> list[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \|", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    return [ALIASES.get(file, file) for _, file in rows]


def is_image(value, depth=0) -> bool:
    if type(value).__name__ in CONTAINERS:
        return True
    # Objects of other libraries may raise anything at a look.
    shape = value.shape if isinstance(value, (np.ndarray, jax.Array)) else None
    # With a batch in front: the mean image that a network file holds is no image on its way.
    if isinstance(shape, tuple) and len(shape) == 4 and shape[1:] == (28, 28, 1):
        return True
    return isinstance(value, dict) and depth == 0 and any(is_image(v, 1) for v in value.values())


def test_an_image_takes_the_documented_route(tmp_path):
    route = documented()
    assert len(route) <= 12
    visited: list[str] = []

    def follow(frame, event, _):
        name = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
        if event != "call" or not name.startswith(("adaptive_nets/", "experiments/")):
            return
        if name not in visited and any(is_image(v) for v in list(frame.f_locals.values())):
            visited.append(name)

    before = sys.getprofile()
    sys.setprofile(follow)
    try:
        code = main(["run", ID, "--preset", "smoke", "--out", str(tmp_path / "run")])
    finally:
        sys.setprofile(before)
    assert code == 0
    assert set(visited) - BESIDE <= set(route)
    # The command and the test are where it starts; every other file has the image in its hands.
    assert set(route) - set(visited) == {"experiments/commands/run.py"}
