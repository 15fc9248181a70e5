"""The page "Your own network" runs from top to bottom and shows what it says."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from experiments.commands import docs

PAGE = docs.ROOT / "docs" / "own-network.md"
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
_SIZES = "STEPS, BATCH, WIDTH, UNITS = 300, 64, 16, 4\nTRAIN, TEST = 20000, 2000\n"
_SMALL = "STEPS, BATCH, WIDTH, UNITS = 2, 4, 2, 2\nTRAIN, TEST = 48, 16\n"


def run(blocks: list[str]) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "own_network"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
    return names


def blocks() -> list[str]:
    return _BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def test_a_short_version_of_the_page_runs(capsys):
    found = blocks()
    assert _SIZES in found[0]
    smaller = {_SIZES: _SMALL, "evaluations=24": "evaluations=3", '("sact", "pact")': '("pact",)'}
    text = []
    for block in found:
        for old, new in smaller.items():
            block = block.replace(old, new)
        text.append(block)
    # The last block compiles a network of the zoo, which has tests of its own.
    names = run(text[:-1])
    assert names["at_budget"]._cache_size() == 1
    assert 0 < names["share"] < 0.6
    assert "nats" in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_trains_networks_that_work(capsys):
    names = run(blocks())
    assert names["plain_accuracy"] > 0.9
    assert names["tuned_accuracy"] > names["plain_accuracy"] - 0.03
    for accuracy, spent in names["results"].values():
        assert accuracy > 0.85
        assert spent < 1
    for budget, spent, accuracy in names["curve"]:
        assert spent == pytest.approx(budget, rel=0.02)
        assert accuracy > 0.5
    assert names["sparse_accuracy"] > 0.9
    assert names["fewer"] > 5
    scores = [float(np.mean(v)) for v in names["averages"].values()]
    assert len(scores) == 2
    assert "programs: 1" in capsys.readouterr().out
