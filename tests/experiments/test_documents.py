"""No number in a document that is not in a record."""

from __future__ import annotations

import pytest

from adaptive_nets.runtime.errors import UserError
from experiments.commands import docs
from experiments.suite import config as config_lib
from experiments.suite import documents
from experiments.suite.records import PUBLISHED, collect
from experiments.suite.registry import experiments


def test_documents_are_up_to_date():
    records, parts = collect([PUBLISHED]), docs.all_parts()
    stale = [
        path.name
        for path in docs.document_paths()
        if documents.update(path, records, parts=parts, check=True)
    ]
    assert stale == [], "run 'adaptive-nets docs'"


def test_pictures_are_up_to_date_and_shown():
    assert docs.stale_pictures() == {}, "run 'adaptive-nets docs'"
    texts = "".join(path.read_text() for path in docs.document_paths())
    for picture in docs.PICTURES.glob("*.svg"):
        assert picture.read_text().lstrip().startswith(("<svg", "<?xml"))
        assert picture.name in texts


def test_every_part_is_rendered_somewhere():
    texts = "".join(path.read_text() for path in docs.document_paths())
    rendered = set(documents.names_of_parts(texts))
    assert set(docs.all_parts()) <= rendered


def test_rendering_replaces_what_is_between_the_marks():
    parts = {"runs": lambda records: f"{len(records)} new\n"}
    text = "a\n<!-- begin runs -->\nold\n<!-- end runs -->\nb\n"
    expected = "a\n<!-- begin runs -->\n0 new\n<!-- end runs -->\nb\n"
    assert documents.rendered(text, [], source="x.md", parts=parts) == expected
    assert documents.rendered(expected, [], source="x.md", parts=parts) == expected


def test_an_unknown_part_is_named(toy_paper):
    text = "<!-- begin toy.sumary -->\n<!-- end toy.sumary -->\n"
    message = r"x\.md has an unknown part 'toy\.sumary'; did you mean 'toy\.summary'"
    with pytest.raises(UserError, match=message):
        documents.rendered(text, [], source="x.md", parts=docs.all_parts())


@pytest.mark.parametrize("record", collect([PUBLISHED]), ids=lambda r: r.path.stem + r.experiment)
def test_published_records_are_of_a_commit_and_name_what_they_changed(record):
    assert record.code["commit"]
    assert record.code["dirty"] is False
    # The flags that repeat it exist.
    experiment = experiments()[record.experiment]
    names = config_lib.flat(config_lib.to_dict(experiment.presets[record.preset].config))
    assert set(record.changed) <= set(names)
    if record.path.stem.startswith(f"{record.preset}-seed"):
        assert not record.changed, "the preset has changed since; run it again or rename the file"


@pytest.mark.parametrize("record", collect([PUBLISHED]), ids=lambda r: r.path.stem + r.experiment)
def test_published_records_lie_within_the_bounds_of_their_preset(record):
    if record.changed:
        pytest.skip(f"changed {', '.join(record.changed)}")
    for bound in experiments()[record.experiment].presets[record.preset].bounds:
        value = record.metric(bound.measure).value
        assert value is not None, bound
        assert bound.low <= value <= bound.high, bound
