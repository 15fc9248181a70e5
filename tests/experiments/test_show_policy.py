"""Policies of files as `show` prints them."""

from __future__ import annotations

import json

from adaptive_nets.ensembling import Policy, SubPolicy, save_policy
from experiments.__main__ import main


def test_a_policy_is_listed_in_order_with_its_counts(tmp_path, capsys):
    path = tmp_path / "policy.json"
    views = (
        SubPolicy((("Rotate", 21.5), ("Identity", 3.0))),
        SubPolicy(),
        SubPolicy(crop=False),
    )
    save_policy(path, Policy("cifar", views, {"from": "a test"}))
    assert main(["show", str(path)]) == 0
    shown = capsys.readouterr()
    assert [line.split("\t") for line in shown.out.splitlines()] == [
        ["view", "operations", "crop"],
        ["1", "Rotate 21.5, Identity 3.0", "true"],
        ["2", "none", "true"],
        ["3", "none", "false"],
    ]
    assert "3 distinct" in shown.err
    assert "33 % with a magnitude above 20" in shown.err
    assert main(["show", str(path), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["unchanged"] == content["crops"] == 1
    assert content["note"] == {"from": "a test"}


def test_a_file_that_is_no_policy_answers_in_one_line(tmp_path, capsys):
    path = tmp_path / "other.json"
    path.write_text('{"format": "another"}')
    for name in (path, tmp_path / "absent.npz"):
        assert main(["show", str(name)]) == 2
        message = capsys.readouterr().err
        assert str(name) in message
        assert message.count("\n") == 1
