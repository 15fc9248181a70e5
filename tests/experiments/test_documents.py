"""No number in a document that is not in a record."""

from __future__ import annotations

import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.suite import config as config_lib
from experiments.suite import documents
from experiments.suite.records import PUBLISHED, collect
from experiments.suite.registry import EXPERIMENTS


def test_documents_are_up_to_date():
    assert documents.stale() == [], "run 'adaptive-nets docs'"


def test_the_picture_is_there_and_shown():
    name = documents.PICTURE.relative_to(documents.ROOT).as_posix()
    assert documents.PICTURE.read_text().startswith("<svg")
    assert f"]({name})" in (documents.ROOT / "README.md").read_text()


def test_every_part_is_rendered_somewhere():
    texts = "".join((documents.ROOT / name).read_text() for name in documents.DOCUMENTS)
    for part in documents.PARTS:
        assert f"<!-- begin {part} -->" in texts


def test_rendering_replaces_what_is_between_the_marks(monkeypatch):
    monkeypatch.setitem(documents.PARTS, "runs", lambda: "new\n")
    text = "a\n<!-- begin runs -->\nold\n<!-- end runs -->\nb\n"
    expected = "a\n<!-- begin runs -->\nnew\n<!-- end runs -->\nb\n"
    assert documents.rendered(text, source="x.md") == expected
    assert documents.rendered(expected, source="x.md") == expected


def test_an_unknown_part_is_named():
    text = "<!-- begin tabel1 -->\n<!-- end tabel1 -->\n"
    with pytest.raises(UserError, match=r"x\.md has a part 'tabel1'; did you mean 'table1'"):
        documents.rendered(text, source="x.md")


@pytest.mark.parametrize("record", collect([PUBLISHED]), ids=lambda r: r.path.stem + r.experiment)
def test_published_records_are_of_a_commit_and_name_what_they_changed(record):
    assert record.code["commit"]
    assert record.code["dirty"] is False
    expected = config_lib.identity(EXPERIMENTS[record.experiment].presets[record.preset].config)
    recorded = {
        name: value for name, value in config_lib.flat(record.config).items() if name in expected
    }
    # A value that came later than the record has been what it is by default.
    assert config_lib.differences(expected, expected | recorded) == record.changed


@pytest.mark.parametrize("record", collect([PUBLISHED]), ids=lambda r: r.path.stem + r.experiment)
def test_published_records_lie_within_the_bounds_of_their_preset(record):
    if record.changed:
        pytest.skip(f"changed {', '.join(record.changed)}")
    for bound in EXPERIMENTS[record.experiment].presets[record.preset].bounds:
        value = record.metric(bound.measure).value
        assert value is None or bound.low <= value <= bound.high, bound
