"""A record is checked in one place, whoever reads, publishes or renders it."""

from __future__ import annotations

import copy
import json

import pytest
from records_for_tests import made_up, write

from adaptive_nets.runtime.errors import UserError
from experiments.suite.record_schema import SCHEMA, decode, validated
from experiments.suite.records import PUBLISHED, collect, publish, read_record

pytestmark = pytest.mark.usefixtures("toy_paper")


def damaged(**changes):
    """A record with entries replaced; a value of ... deletes one."""
    record = copy.deepcopy(made_up(error=1.9))
    for name, value in changes.items():
        node = record
        *parents, last = name.split("__")
        for parent in parents:
            node = node[parent]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return record


def test_a_record_passes_unchanged():
    record = made_up(error=1.9, compression=None)
    assert validated(record, source="x") == record


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metrics": 7}, "metrics"),
        ({"metrics": [1]}, "metrics"),
        ({"metrics__error": 1.9}, "metrics"),
        ({"metrics__error__value": "1.9"}, "value"),
        ({"metrics__error__count": -1}, "count"),
        ({"experiment": "../../etc/passwd"}, "experiment"),
        ({"experiment": "a/b.c"}, "experiment"),
        ({"experiment": "a..b"}, "experiment"),
        ({"experiment": "toy"}, "experiment"),
        ({"preset": "../quick"}, "preset"),
        ({"preset": ""}, "preset"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": ...}, "seed"),
        ({"config": []}, "config"),
        ({"config_hash": "../x"}, "config_hash"),
        ({"changed": "tau"}, "changed"),
        ({"code": None}, "code"),
        ({"code__commit": 3}, "commit"),
        ({"devices": {}}, "platform"),
        ({"dataset__train": "many"}, "train"),
        ({"seconds": -1}, "seconds"),
        ({"steps": None}, "steps"),
        ({"history": {"loss": [1, 2]}}, "history"),
        ({"history": {"loss": [[1, 2, 3]]}}, "history"),
        ({"kernels": 3}, "kernels"),
        ({"inputs": [{"digest": "x"}]}, "inputs"),
        ({"schema": 99}, "schema"),
        ({"schema": "2"}, "schema"),
        ({"schema": ...}, "schema"),
    ],
)
def test_what_is_wrong_is_named(changes, named):
    with pytest.raises(UserError, match=named) as caught:
        validated(damaged(**changes), source="there.json")
    assert "there.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"7", b"null", b'{"seed": NaN}', b"\xff\xfe", b"[" * 100_000]
)
def test_files_that_are_no_record_are_named(text):
    with pytest.raises(UserError, match=r"record x\.json"):
        decode(text, source="x.json")


def test_schema_1_is_read_without_what_it_never_noted():
    old = made_up(error=1.9)
    old["schema"] = 1
    for name in ("inputs", "machine"):
        del old[name]
    new = validated(old, source="x")
    assert new["schema"] == SCHEMA
    assert new["kernels"] is None
    assert new["inputs"] == []
    assert new["metrics"] == old["metrics"]


def test_every_published_record_is_read():
    files = [*PUBLISHED.glob("*/*/*.json")]
    told = []
    assert len(collect([PUBLISHED], warn=told.append)) == len(files) > 30
    assert told == []


def test_damaged_records_are_named_and_the_rest_is_read(tmp_path):
    write(made_up(error=1.9), tmp_path)
    for i, text in enumerate(("{", "[]", json.dumps(damaged(metrics=7)))):
        path = tmp_path / f"bad{i}" / "record.json"
        path.parent.mkdir()
        path.write_text(text)
    told = []
    (record,) = collect([tmp_path], warn=told.append)
    assert record.metric("error").value == 1.9
    assert len(told) == 3
    assert all(f"bad{i}" in line for i, line in enumerate(told))


def test_damaged_arrays_are_named_and_left_out(tmp_path, capsys):
    path = write(made_up(error=1.9), tmp_path)
    path.with_name("arrays.npz").write_bytes(b"PK\x03\x04 cut off")
    assert read_record(path).arrays() == {}
    assert "arrays.npz" in capsys.readouterr().err


def test_nothing_is_published_outside_the_results(tmp_path):
    path = write(made_up(error=1.9), tmp_path / "run")
    record = read_record(path)
    record.content["experiment"] = "../../evil.x"
    with pytest.raises(UserError, match="experiment"):
        publish(record, tmp_path / "results")
    record.content["experiment"] = "unknown.paper.row"
    with pytest.raises(UserError, match="unknown"):
        publish(record, tmp_path / "results")
    assert not (tmp_path / "results").exists()
