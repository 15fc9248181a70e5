"""History of logged values: a sample in every checkpoint, taken back when lines are lost."""

from __future__ import annotations

import itertools
import json

import pytest

from adaptive_nets.training.history import SAMPLED, History, restored_lines
from adaptive_nets.training.writers import JsonLinesWriter

LINES = [
    line
    for step in range(1, 11)
    for line in ({"step": step, "loss": 1 / step}, {"step": step, "test/error": step / 10})
]


def test_a_whole_file_is_taken_as_it_is():
    assert restored_lines(LINES, History(LINES).snapshot()) == (LINES, "")


def test_a_checkpoint_without_history_says_nothing():
    assert restored_lines(LINES[:3], None) == (LINES[:3], "")


@pytest.mark.parametrize("kept", [slice(0, 7), slice(0, 0), slice(5, None), slice(3, 12)])
def test_lost_lines_come_from_the_checkpoint(kept):
    lines, damage = restored_lines(LINES[kept], History(LINES).snapshot())
    assert lines == LINES
    lost = len(LINES) - len(LINES[kept])
    assert damage.startswith(f"has lost {lost} of its 20 lines; {lost} of them are taken")


def test_changed_lines_are_kept_and_named():
    changed = [*LINES[:-1], {"step": 10, "test/error": 0.0}]
    lines, damage = restored_lines(changed, History(LINES).snapshot())
    assert lines == changed
    assert "differs from what the checkpoint recorded" in damage


@pytest.mark.parametrize("count", [1, SAMPLED, SAMPLED + 1, 1000, 12_345])
def test_the_sample_is_bounded_even_and_has_both_ends(count):
    history = History()
    for step in range(count):
        history.add({"step": step, "loss": 0.0})
    snapshot = history.snapshot()
    steps = [line["step"] for line in snapshot["sample"]]
    assert snapshot["lines"] == count
    assert len(steps) <= SAMPLED + 1
    assert (steps[0], steps[-1]) == (0, count - 1)
    gaps = {b - a for a, b in itertools.pairwise(steps[:-1])}
    assert len(gaps) <= 1
    assert len(steps) >= min(count, SAMPLED // 2)


@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut off", "overwritten"])
def test_a_writer_goes_on_after_a_damage(tmp_path, damage):
    path = tmp_path / "metrics.jsonl"
    writer = JsonLinesWriter(path, resume_step=0)
    for line in LINES:
        writer.write(line["step"], {k: v for k, v in line.items() if k != "step"})
    snapshot = json.loads(json.dumps(writer.snapshot()))
    writer.write(11, {"loss": 0.0})
    writer.close()
    if damage == "deleted":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.write_bytes(b"" if damage == "emptied" else b"\xff" * 100)
    resumed = JsonLinesWriter(path, resume_step=10, snapshot=snapshot)
    assert "of its 20 lines" in resumed.damage
    assert resumed.snapshot() == snapshot
    resumed.write(11, {"loss": 0.5})
    resumed.close()
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert found == [*LINES, {"step": 11, "loss": 0.5}]
    again = JsonLinesWriter(path, resume_step=10, snapshot=snapshot)
    again.close()
    assert again.damage == ""
