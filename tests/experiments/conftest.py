"""The toy paper, for tests of what is common to all papers, and a caller of commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_papers import installed, write_distribution

from experiments.__main__ import main


@pytest.fixture(scope="module")
def toy_paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A distribution with the toy paper, known to the registry; the folder on `sys.path`."""
    root = tmp_path_factory.mktemp("distribution")
    write_distribution(root)
    with installed(root):
        yield root


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; returns (code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ADAPTIVE_NETS_DATA", raising=False)

    def run(*arguments):
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return code, out, err

    return run
