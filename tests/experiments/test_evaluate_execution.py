"""evaluate --execution: a network of adaptive depth, dense and skipping."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from adaptive_nets.data import Dataset, Split
from adaptive_nets.models import create_model
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights.stored import InputNormalisation, save_network
from experiments.__main__ import main

NAME = "resnet32_act_cifar10"


@pytest.mark.slow
def test_both_executions_report_the_same_error(capsys, tmp_path, monkeypatch, rng):
    images = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    test = Split(images, np.arange(6, dtype=np.int32))
    names = tuple("0123456789")
    dataset = Dataset("cifar10", "files", "memory", 10, names, None, test, "f" * 64, True)
    monkeypatch.setattr("adaptive_nets.data.sources.load", lambda *a, **k: dataset)
    shapes = abstract_variables(create_model(NAME), (32, 32, 3))
    variables = jax.tree.map(
        lambda s: rng.uniform(0.01, 0.1, size=s.shape).astype(np.float32), shapes
    )
    save_network(
        tmp_path / "n.safetensors",
        model=NAME,
        num_classes=10,
        variables=variables,
        normalisation=InputNormalisation(255.0, np.zeros((1, 1, 1)), np.ones((1, 1, 1))),
    )
    reports = {}
    for execution in ("dense", "skipping"):
        options = ("--weights", str(tmp_path / "n.safetensors"), "--execution", execution)
        assert main(["evaluate", NAME, *options, "--data", "cifar10", "--json"]) == 0
        reports[execution] = json.loads(capsys.readouterr().out)
        assert reports[execution].pop("execution") == execution
    losses = [report.pop("loss_nats") for report in reports.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert reports["dense"] == reports["skipping"]


@pytest.mark.parametrize("name", ["lenet5_caffe", "rnn_act_parity"])
def test_a_network_without_a_skipping_form_is_refused(capsys, name):
    options = ("--weights", "w.safetensors", "--data", "mnist", "--execution", "skipping")
    assert main(["evaluate", name, *options]) == 2
    message = f"--execution is 'skipping'; expected 'dense': {name} has no skipping form"
    assert message in capsys.readouterr().err
