"""The toy paper, for tests of what is common to all papers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_papers import installed, write_distribution


@pytest.fixture(scope="module")
def toy_paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A distribution with the toy paper, known to the registry; the folder on `sys.path`."""
    root = tmp_path_factory.mktemp("distribution")
    write_distribution(root)
    with installed(root):
        yield root
