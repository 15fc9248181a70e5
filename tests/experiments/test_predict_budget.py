"""A budget on the command line."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from PIL import Image

import adaptive_nets as an
from adaptive_nets.halting import save_calibration
from adaptive_nets.models import calibrate_budget
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights import InputNormalisation, save_network
from experiments.__main__ import main

NAME, SMALL = "resnetv1_20_sact_cifar10", {"stage_sizes": [2, 1, 1], "widths": [2, 2, 2]}


@pytest.mark.slow
def test_a_budget_is_spent_or_refused(tmp_path, capsys, rng):
    model = an.create_model(NAME, **SMALL)
    shapes = abstract_variables(model, (32, 32, 3))
    variables = jax.tree.map(
        lambda x: np.abs(rng.normal(0.1, 0.3, x.shape)).astype(np.float32), shapes
    )
    ones = np.ones((1, 1, 3), np.float32)
    save_network(
        tmp_path / "n.safetensors", model=NAME, num_classes=10, variables=variables,
        normalisation=InputNormalisation(255.0, 0.5 * ones, ones),
        note={"data": "cifar10", "overrides": SMALL},
    )  # fmt: skip
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(4):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    flags = [str(folder), "--model", NAME, "--weights", str(tmp_path / "n.safetensors")]

    def call(*more):
        code = main(["predict", *flags, "--top", "1", *more])
        return code, *capsys.readouterr()

    inputs = rng.normal(0, 1, (8, 32, 32, 3)).astype(np.float32)
    table = calibrate_budget(model, variables, inputs, evaluations=4)
    save_calibration(tmp_path / "budget.json", table)
    budget = str(float(table.flops[0]))
    code, out, err = call("--budget", budget, "--calibration", str(tmp_path / "budget.json"))
    assert code == 0, err
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert [float(row[header.index("flops")]) for row in rows] == [float(budget)] * 4
    code, _, err = call("--budget", "0.01")
    assert code == 2
    assert err.count("\n") == 1
    assert "--budget is 0.01" in err
    assert "first units" in err
    code, _, err = call("--calibration", "budget.json")
    assert code == 2
    assert "--calibration budget.json is for --budget" in err
    code, _, err = call("--budget", "0.9", "--calibration", str(tmp_path / "absent.json"))
    assert code == 2
    assert "absent.json" in err


def test_a_network_of_fixed_depth_has_no_budget(complains, tmp_path):
    from experiments.commands.predict import classify

    lenet = an.create_model("lenet_300_100")
    complains(
        lambda: classify(lenet, {}, np.zeros((1, 28, 28, 1)), [tmp_path], budget=0.5),
        *("--budget 0.5", "fixed depth"),
    )
