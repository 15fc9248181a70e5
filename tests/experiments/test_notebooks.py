"""Notebooks run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pytest

import experiments

NOTEBOOKS = sorted((Path(experiments.__file__).parent / "notebooks").glob("*.py"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, capsys):
    mpl.use("agg")
    text = path.read_text(encoding="utf-8").replace("STEPS = 4000", "STEPS = 40")
    assert "STEPS = 40\n" in text
    exec(compile(text, str(path), "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert "test error" in out
    mpl.pyplot.close("all")
