"""Coverage of the papers' numbers, on made-up records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from records_for_tests import made_up, write
from toy_papers import TRAINED

from experiments.commands import table
from experiments.suite.coverage import NO_COMMAND, VERDICTS, Coverage, coverage, of_papers
from experiments.suite.paper_values import Row
from experiments.suite.records import PUBLISHED, Record, collect
from experiments.suite.registry import load_paper, papers

pytestmark = pytest.mark.usefixtures("toy_paper")

# The toy's table: 2 + 5 numbers with an experiment, 3 + 2 of other methods.
NUMBERS = 12


def of_toy(*contents) -> Coverage:
    records = [Record(content, Path("x.json")) for content in contents]
    (found,) = [part for part in coverage(records) if part.paper == "toy"]
    return found


def test_without_records_every_number_is_not_run_or_cited():
    found = of_toy()
    assert dict(found.verdicts) == {"not run": 7, "cited": 5}
    assert (found.table, found.numbers, found.rows_run) == ("Table 1", NUMBERS, "0 of 2")


def test_a_number_counts_once_by_its_best_run():
    reduced = made_up(preset="quick", error=1.92, compression=68)
    found = of_toy(reduced)
    assert dict(found.verdicts) == {"reduced": 2, "not run": 5, "cited": 5}
    whole = made_up(error=1.92, compression=10)
    found = of_toy(reduced, whole, made_up(TRAINED, preset="quick", error=2.0))
    expected = {"reproduced": 1, "differs": 1, "reduced": 1, "not run": 4, "cited": 5}
    assert dict(found.verdicts) == expected
    assert found.numbers == NUMBERS
    assert found.rows_run == "2 of 2"


def test_numbers_without_an_experiment_are_not_called_not_run(monkeypatch):
    paper = load_paper("toy")
    row = Row("table2.lost", "Table 2", "Small", "Lost", {"error": 1.0}, "verified", "the toy",
              unmeasured="its data are lost")  # fmt: skip
    monkeypatch.setitem(paper.rows, row.id, row)
    (found,) = [p for p in coverage([]) if (p.paper, p.table) == ("toy", "Table 2")]
    assert dict(found.verdicts) == {NO_COMMAND: 1}
    assert found.rows_run == "–"


def test_papers_are_sums_of_their_tables_and_no_number_is_lost():
    found = coverage(collect([PUBLISHED]))
    for part in of_papers(found):
        parts = [p for p in found if p.paper == part.paper]
        assert part.numbers == sum(p.numbers for p in parts)
        assert set(part.verdicts) <= set(VERDICTS)
        rows = load_paper(part.paper).rows.values()
        assert part.numbers == sum(len(row.values) for row in rows)
        assert part.rows == len(papers()[part.paper].experiments)


def test_the_command_prints_a_line_for_every_table(tmp_path, capsys):
    write(made_up(error=1.92), tmp_path)
    table.main(["--coverage", "toy", "--results", str(tmp_path), "--json"])
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["paper"], row["table"], row["reproduced"]) == ("toy", "Table 1", 1)
    table.main(["--coverage", "toy", "--results", str(tmp_path)])
    header, line = capsys.readouterr().out.splitlines()
    assert dict(zip(header.split("\t"), line.split("\t"), strict=True))["reproduced"] == "1"
