"""Adaptive depth: equal-FLOP controls, streamed measures, the jumps of the ponder cost, figures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptive_networks import cifar, variables
from photographs import built, folders, small_set  # noqa: F401
from records_for_tests import write_run
from tolerances import close

import adaptive_nets as an
from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import DataConfig, TrainConfig
from experiments.papers.pact import figures as pact_figures
from experiments.papers.pact.experiments import discontinuity
from experiments.papers.pact.experiments.latent import model_overrides
from experiments.papers.pact.fields import DiscontinuityConfig, ScoreCurveConfig
from experiments.papers.sact import experiment as sact
from experiments.papers.sact.fields import EqualFlopsConfig, EqualFlopsTrainConfig
from experiments.report.charts import Figure, Missing
from experiments.shared.adaptive_depth.configs import LatentConfig
from experiments.shared.adaptive_depth.equal_flops import (
    plain_flops,
    proportional_units,
    units_of_run,
)
from experiments.shared.adaptive_depth.images import StreamedImages
from experiments.shared.adaptive_depth.measures import counter, measure_usage
from experiments.shared.adaptive_depth.tables import cost_table
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.registry import find_experiment

pytestmark = pytest.mark.core
CIFAR_MAPS = [(32, 32), (16, 16), (8, 8)]
IMAGENET_MAPS = [(56, 56), (28, 28), (14, 14), (7, 7)]


def network(name: str) -> AdaptiveResidualNetwork:
    model = an.create_model(name)
    assert isinstance(model, AdaptiveResidualNetwork)
    return model


def outcome(**metrics: float) -> Outcome:
    found = {name.replace("__", "."): Metric(value, "") for name, value in metrics.items()}
    return Outcome(found, {}, seconds=1.0, steps=600)


@pytest.mark.parametrize(
    ("experiment", "name", "maps", "flops"),
    [
        ("sact.baseline.resnet32-equal-flops", "resnet32_sact_cifar10", CIFAR_MAPS, 82_393_168),
        ("sact.baseline.imagenet-resnet101-equal-flops", "resnet101_sact", IMAGENET_MAPS,
         11_100_941_000),
    ],
)  # fmt: skip
def test_controls_have_the_published_cost(experiment, name, maps, flops):
    model = network(name)
    sizes = proportional_units(model, maps, flops=flops)
    assert find_experiment(experiment).presets["paper"].config.baseline.units == sizes
    assert plain_flops(model, maps, sizes) == pytest.approx(flops, rel=0.02)


def test_plain_flops_are_those_of_the_traced_network():
    model = network("resnet32_sact_cifar10")
    for sizes in ((5, 5, 5), (3, 1, 2)):
        macs = an.count_macs("resnetv2_32_cifar10", stage_sizes=sizes)
        assert plain_flops(model, CIFAR_MAPS, sizes) == 2 * macs
    # The anchors of the authors' code and of the published network.
    assert plain_flops(model, CIFAR_MAPS, (5, 5, 5)) == 137_725_184
    whole = plain_flops(network("resnet101_sact"), IMAGENET_MAPS, (3, 4, 23, 3))
    assert whole == 15_602_814_976


def test_units_of_a_run_are_rounded(tmp_path):
    units = {"units__block1": 2.5, "units__block2": 1.49, "units__block3": 0.2}
    record = write_run(tmp_path, "sact.cifar10.r32-sact-tau1e-2", outcome(**units), {})
    seed = Path(record.path).parent
    options = {"flag": "baseline.like", "seed": 0}
    with pytest.raises(UserError, match="which holds no trained network"):
        units_of_run(str(seed.parent), **options)
    (seed / "network.safetensors").write_bytes(b"weights")
    assert units_of_run(str(seed.parent), **options) == (3, 1, 1)
    assert units_of_run(str(seed), **options) == (3, 1, 1)
    plain = write_run(tmp_path, "sact.baseline.resnet32", outcome(flops=1.0), {})
    (Path(plain.path).parent / "network.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match="a run of a network of fixed depth"):
        units_of_run(str(Path(plain.path).parent), **options)
    (tmp_path / "alone.safetensors").write_bytes(b"weights")
    with pytest.raises(UserError, match="has no record"):
        units_of_run(str(tmp_path / "alone.safetensors"), **options)


def test_a_control_without_units_says_where_they_come_from():
    config = EqualFlopsTrainConfig(TrainConfig(), EqualFlopsConfig())
    with pytest.raises(
        UserError, match=r"--baseline.like is ''; expected the folder of a finished"
    ):
        sact.stage_sizes(config, seed=0)
    with pytest.raises(UserError, match=r"--baseline.units is"):
        EqualFlopsConfig(units=(3, 0, 3))
    short = find_experiment("sact.baseline.resnet32-equal-flops").presets["smoke"].config
    short = dataclasses.replace(short, baseline=EqualFlopsConfig(units=(3, 3)))
    options: dict[str, Any] = {"dataset": None, "directory": Path(), "progress": None, "title": ""}
    with pytest.raises(UserError, match=r"--baseline.units gives \(3, 3\) units per block"):
        sact.run(short, seed=0, **options)


def test_training_on_imagenet_starts_from_a_plain_network(tmp_path):
    config = find_experiment("sact.imagenet.r101-sact-tau5e-3").presets["paper"].config
    with pytest.raises(UserError, match=r"--halting.start-from is ''; expected .*imagenet-resnet1"):
        sact.run(config, dataset=None, directory=tmp_path, seed=0, progress=None, title="")  # pyright: ignore


@pytest.mark.parametrize("name", ["resnetv2_32_cifar10", "resnet32_act_cifar10"])
def test_sizes_of_stages_are_an_option_of_the_model(name):
    assert an.create_model(name, stage_sizes=[1, 2, 3]).stage_sizes == (1, 2, 3)  # pyright: ignore
    for wrong in ((1, 2), (1, 2, 0), 3, "123", (1.0, 2, 3)):
        with pytest.raises(
            UserError, match=r"stage_sizes is .*; expected 3 positive whole numbers"
        ):
            an.create_model(name, stage_sizes=wrong)


def test_an_exported_small_network_can_be_made_again():
    stored = json.loads(json.dumps(model_overrides(LatentConfig(units=2, width=8))))
    model = an.create_model("resnet32_pact_cifar10", **stored)
    assert (model.stage_sizes, model.widths) == ((2, 2, 2), (8, 16, 32))  # pyright: ignore


def test_streamed_images_are_measured_like_those_in_memory(built):  # noqa: F811
    model = cifar("sact").clone(stage_sizes=(2,), widths=(4,))
    values = variables(model, bias=-0.5)
    split = small_set(built).streams["test"]
    data = DataConfig(name="imagenet", pixel_scale=127.5, centre="middle")
    streamed = StreamedImages(split, TrainConfig(data=data))
    (whole,) = streamed.batches(split.size)
    assert isinstance(whole, DeviceSplit)
    uses = [
        measure_usage(model, values, images, flops=counter(model, images), batch_size=size)
        for images, size in ((whole, split.size), (streamed, 4))
    ]
    assert split.size % 4, "the last batch is padded"
    for name in ("error", "flops", "pictures"):
        np.testing.assert_array_equal(*(getattr(use, name)[:4] for use in uses))
        assert len(uses[1].error) == split.size
    close(uses[1].nll, uses[0].nll, terms=1000)
    close(uses[1].mean_map, uses[0].mean_map, terms=1000)


def compute(**curve) -> Outcome:
    config = DiscontinuityConfig(ScoreCurveConfig(**curve))
    return discontinuity.run(
        config, dataset=None, directory=Path(), seed=0, progress=None, title=""  # pyright: ignore
    )  # fmt: skip


def test_ponder_cost_jumps_where_the_number_of_units_changes():
    """Thesis, figure 4.2: N + R of scores (h, 1/3, 1/3, 1/3) by hand."""
    found = compute(points=1001)
    h = np.linspace(0, 1, 1001)
    clear = np.ones(len(h), bool)
    expected = np.zeros(len(h))
    # N is the first n with h + (n − 1)/3 >= 0.99, and R = 1 − h − (N − 2)/3.
    for units, low, high in ((1, 0.99, 2), (2, 0.99 - 1 / 3, 0.99), (3, 0.99 - 2 / 3, 0.99 - 1 / 3),
                             (4, -1, 0.99 - 2 / 3)):  # fmt: skip
        inside = (h >= low) & (h < high)
        expected[inside] = units + (1 if units == 1 else 1 - h[inside] - (units - 2) / 3)
        clear &= np.abs(h - low) > 1e-5
    np.testing.assert_allclose(found.arrays["ponder_cost"][clear], expected[clear], atol=1e-5)
    q = 1 - h
    np.testing.assert_allclose(
        found.arrays["expected"], 1 + q * (1 + 2 / 3 + 4 / 9 + 8 / 27), atol=1e-5
    )
    assert found.metrics["jumps"].value == 3
    assert found.metrics["largest_jump"].value == pytest.approx(2 / 3, abs=0.002)
    assert found.metrics["largest_step_expected"].value == pytest.approx(65 / 27 / 1000, rel=1e-3)


def test_other_scores():
    one = compute(others=(0.0,), points=2)
    assert one.metrics["jumps"].value == 1
    assert one.arrays["ponder_cost"][-1] == pytest.approx(2)
    for wrong in ({"others": ()}, {"others": (1.5,)}, {"points": 1}, {"eps": 0.0}):
        with pytest.raises(UserError, match="--curve"):
            compute(**wrong)


def test_curve_of_several_taus_and_the_control_beside_it(tmp_path):
    points = {
        "pact.curve.r32-pact-tau1e-3": (1.2e8, 90.0),
        "pact.curve.r32-pact-tau2e-2": (6e7, 88.0),
        "sact.cifar10.r32-sact-tau1e-2": (8e7, 89.0),
        "sact.baseline.resnet32": (1.377e8, 91.0),
        "sact.baseline.resnet32-equal-flops": (8.1e7, 88.5),
    }
    records = [
        write_run(tmp_path, name, outcome(flops=flops, test_accuracy=accuracy, units__block1=3), {})
        for name, (flops, accuracy) in points.items()
    ]
    (figure,) = pact_figures.curves(records)
    assert isinstance(figure, Figure)
    names = [row[0] for row in figure.data["rows"]]
    assert names[0] == "PACT, thresholded, tau 0.02"
    assert "plain, 3 units" in names
    assert len(names) == 5
    missing = pact_figures.curves(records[:1])
    assert isinstance(missing[0], Missing)
    # The share is of the whole plain network, not of the control.
    table = cost_table(records, prefix=("pact.curve.", "sact.baseline."))
    (row,) = (line for line in table.splitlines() if "tau2e-2" in line)
    assert "43.6 %" in row
    (row,) = (line for line in table.splitlines() if "equal-flops" in line)
    assert "58.8 %" in row


def test_figure_of_the_discontinuity_keeps_jumps_open(tmp_path):
    found = compute(points=101)
    record = write_run(tmp_path, "pact.discontinuity.ponder-cost", found, {})
    figure = pact_figures.discontinuity([record])
    assert isinstance(figure, Figure)
    assert "up to 0.68 units" in figure.caption
    assert isinstance(pact_figures.discontinuity([]), Missing)
