"""Metrics to Weights & Biases, with a fake of the package; nothing leaves this machine."""

from __future__ import annotations

import json
import sys
import types

import pytest

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.further_writers import further_writers, open_further_writers
from adaptive_nets.training.wandb_writer import ID_FILE, WandbWriter, check_wandb


@pytest.fixture
def wandb(monkeypatch):
    """Records what the package is called with."""
    module = types.ModuleType("wandb")
    module.started, module.logged, module.finished = [], [], []

    class Run:
        def log(self, values, step):
            module.logged.append((step, values))

        def finish(self):
            module.finished.append(True)

    def init(**options):
        module.started.append(options)
        return Run()

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_what_is_written(wandb, tmp_path):
    options = {"project": "team/depth", "name": "a seed0", "config": {"data": {"name": "mnist"}}}
    writer = WandbWriter(tmp_path, resume_step=0, **options)
    writer.write(3, {"loss": 0.5, "bad": float("nan"), "worse": float("inf")})
    writer.close()
    (started,) = wandb.started
    assert (started["entity"], started["project"]) == ("team", "depth")
    assert (started["name"], started["resume"]) == ("a seed0", "allow")
    assert (started["dir"], started["config"]) == (str(tmp_path), options["config"])
    assert wandb.logged == [(3, {"loss": 0.5})]
    assert wandb.finished == [True]
    assert json.loads((tmp_path / ID_FILE).read_text()) == {"id": started["id"]}
    # A resumed seed goes on there; one that starts again does not.
    WandbWriter(tmp_path, resume_step=5, **options)
    WandbWriter(tmp_path, resume_step=0, **options | {"project": "depth"})
    assert wandb.started[1]["id"] == started["id"] != wandb.started[2]["id"]
    assert wandb.started[2]["entity"] is None


def test_a_missing_package_and_a_refusal_are_one_line(wandb, tmp_path, monkeypatch):
    def refuse(**_):
        raise RuntimeError("no\napi key")

    wandb.init = refuse
    with pytest.raises(
        UserError, match=r"--wandb p: Weights & Biases refuses the run \(no api key"
    ):
        WandbWriter(tmp_path, resume_step=0, project="p", name="n", config={})
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--wandb needs the package wandb, which is not installed"):
        check_wandb()


def test_writers_of_a_block(tmp_path):
    opened = []

    class Silent:
        def __init__(self, *place):
            opened.append(place)

        def write(self, step, values): ...

        def close(self): ...

    with further_writers(Silent), further_writers(Silent):
        assert len(list(open_further_writers(tmp_path, resume_step=4))) == 2
    assert opened == [(tmp_path, 4)] * 2
    assert list(open_further_writers(tmp_path, resume_step=0)) == []
