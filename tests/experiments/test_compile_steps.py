"""Compiling training steps for other machines: with the devices here in their place."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import jax
import pytest

from experiments.bench import compile_steps


@pytest.fixture(autouse=True)
def machines(monkeypatch):
    """Four devices here, images of digits, and variables that are put back."""
    for name in ("TPU_SKIP_MDS_QUERY", "XLA_FLAGS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    here = compile_steps.Machine("here-4", "cpu", (("topology", "1x1x4"),), batch=2)
    monkeypatch.setattr(compile_steps, "MACHINES", (here,))
    monkeypatch.setattr(compile_steps, "SIZE", (28, 28, 1))
    monkeypatch.setattr(
        compile_steps.topologies,
        "get_topology_desc",
        lambda platform, topology: SimpleNamespace(devices=jax.devices()),
    )


def run(tmp_path, *arguments):
    code = compile_steps.main(["--out", str(tmp_path / "record.json"), *arguments])
    return code, json.loads((tmp_path / "record.json").read_text())


def test_a_step_is_compiled_and_its_memory_and_communication_recorded(tmp_path, capsys):
    code, record = run(tmp_path, "--network", "lenet_300_100")
    assert code == 0
    (step,) = record["steps"]
    assert (step["machine"], step["devices"], step["batch"]) == ("here-4", 4, 8)
    assert step["mesh"] == {"data": 4, "model": 1}
    parameters = 4 * 266_610
    assert step["parameter_bytes"] == parameters
    assert step["memory_per_device"]["arguments"] > parameters
    # Every parameter's gradient is added up over the devices; the loss and counts come on top.
    assert parameters <= step["collectives"]["all-reduce"]["bytes"] < 1.01 * parameters
    assert step["minimum"]["all-reduce"] == parameters
    assert set(record["code"]) == {"commit", "dirty"}
    assert record["versions"]["jax"] == jax.__version__
    assert "GiB per device" in capsys.readouterr().out


def test_a_step_that_does_not_compile_is_recorded(tmp_path, monkeypatch, capsys):
    def refuse(*arguments):
        raise RuntimeError("out of memory\nin detail")

    monkeypatch.setattr(compile_steps, "lower_step", refuse)
    code, record = run(tmp_path, "--network", "lenet_300_100")
    assert code == 1
    assert record["steps"][0]["error"] == "RuntimeError: out of memory\nin detail"
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("FAILED RuntimeError: out of memory")


def test_networks_that_halt_count_the_ponder_cost():
    plain, adaptive = (compile_steps._task(name) for name in compile_steps.NETWORKS)
    assert plain.objective is not adaptive.objective
    assert type(adaptive.model) is not type(plain.model)
