"""Papers of other distributions, made by tests: copies of the toy in `toy_paper`."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from experiments.suite import registry

SOURCE = Path(__file__).with_name("toy_paper")
TRAINED = "toy.table1.small-trained"
PRUNED = "toy.table1.small-pruned"


def write_distribution(root: Path, *, name: str = "toy", package: str = "toy_paper") -> Path:
    """Writes a distribution with one paper and returns the paper's folder.

    Args:
        root: Folder for `sys.path`.
        name: Name of the paper.
        package: Name of its package.
    """
    info = root / f"{package}-1.0.dist-info"
    shutil.copytree(SOURCE / "toy_paper-1.0.dist-info", info)
    metadata = (info / "METADATA").read_text().replace("toy-paper", package.replace("_", "-"))
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {package}\n")
    folder = root / package
    folder.mkdir()
    for path in sorted((SOURCE / "toy_paper").iterdir()):
        if path.is_file():
            text = path.read_text(encoding="utf-8").replace("toy_paper", package)
            (folder / path.name).write_text(text.replace("toy.", f"{name}."), encoding="utf-8")
    return folder


@contextlib.contextmanager
def installed(root: Path) -> Iterator[None]:
    """Makes the distributions of a folder known for the time of a block; blocks can be nested."""
    packages = {path.name for path in root.iterdir()}

    def take_modules() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.split(".")[0] in packages]
        return {name: sys.modules.pop(name) for name in names}

    outer = take_modules()
    sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    registry.refresh()
    try:
        yield
    finally:
        sys.path.remove(str(root))
        take_modules()
        sys.modules.update(outer)
        importlib.invalidate_caches()
        registry.refresh()
