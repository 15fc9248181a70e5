"""Test-time augmentation as an experiment: one network, a pair, tables, mistakes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from records_for_tests import write_run

from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.ensembling import average_views, calibrated_log_likelihood, crop_views
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.config import ModelConfig
from experiments.papers.tta import tables
from experiments.papers.tta.configs import PairConfig, SecondConfig, SingleConfig, SpeedConfig
from experiments.papers.tta.experiment import run
from experiments.papers.tta.figures import figures
from experiments.report.charts import Missing
from experiments.shared.ensembling.configs import ImagesConfig, ViewsConfig
from experiments.shared.ensembling.network import load_trained
from experiments.shared.ensembling.scores import CLL

RESNET_20 = ModelConfig(name="resnet20_cifar10")
SINGLE = SingleConfig(
    weights="random", data=ImagesConfig(eval_batch_size=16), model=RESNET_20,
    views=ViewsConfig(counts=(1, 3)), speed=SpeedConfig(seconds=0.01),
)  # fmt: skip


@pytest.fixture
def dataset(rng):
    images = rng.integers(0, 256, (21, 32, 32, 3)).astype(np.uint8)
    split = Split(images, rng.integers(0, 10, 21).astype(np.int32))
    return Dataset(
        name="cifar10", source="test", location="nowhere", num_classes=10,
        class_names=tuple("abcdefghij"), train=split, test=split, fingerprint="f", complete=True,
    )  # fmt: skip


def measured(config, dataset, folder):
    return run(
        config, dataset=dataset, directory=folder, seed=0, progress=SilentProgress(), title="t"
    )


def test_one_network_is_measured_over_views_with_and_without_calibration(dataset, tmp_path):
    found = measured(SINGLE, dataset, tmp_path)
    network = load_trained("random", "resnet20_cifar10", dataset, seed=0)
    averages = average_views(
        [network.predictor()], dataset.test.images, crop_views(4), counts=(1, 3), batch_size=16
    )
    expected = calibrated_log_likelihood(averages[3], dataset.test.labels)
    assert found.metrics[f"{CLL}.3"].value == pytest.approx(expected, abs=1e-9)
    np.testing.assert_array_equal(found.arrays["counts"], [1, 3])
    assert found.arrays[CLL][1] == pytest.approx(expected, abs=1e-9)
    assert found.metrics["plain_error"].count == 21
    assert 0 < found.metrics["throughput_share"].value < 3
    assert (tmp_path / "views.npz").exists()


def test_tables_and_figures_show_every_number_of_views(dataset, tmp_path):
    config = dataclasses.replace(SINGLE, views=ViewsConfig(counts=(1, 20)))
    outcome = measured(config, dataset, tmp_path)
    record = write_run(tmp_path, "tta.cifar10.resnet20", outcome, {})
    lines = tables.views_table([record]).splitlines()
    assert len(lines) == 2 + 3
    assert f"| {outcome.metrics[f'{CLL}.20'].value:.4f} |" in lines[-1]
    assert f"{outcome.metrics['throughput_share'].value:.3f}" in tables.speed_table([record])
    better = outcome.metrics[f"{CLL}.20"].value > outcome.metrics[f"plain_{CLL}"].value
    assert ("is not better than" in tables.answer([record])) is not better
    figure, missing = figures([record])
    assert len(figure.svg) == 3
    assert [row[1] for row in figure.data["rows"]] == [1, 20]
    assert isinstance(missing, Missing)
    assert tables.views_table([]).startswith("Not run")


def test_members_of_a_pair_take_turns(dataset, tmp_path):
    config = PairConfig(
        weights="random", data=SINGLE.data, model=RESNET_20,
        second=SecondConfig(weights="random", name="resnet20_cifar10"),
        views=ViewsConfig(counts=(2,)), speed=SpeedConfig(seconds=0.0),
    )  # fmt: skip
    found = measured(config, dataset, tmp_path)
    members = [
        load_trained("random", "resnet20_cifar10", dataset, seed=seed).predictor()
        for seed in (0, 1)
    ]
    expected = average_views(
        members, dataset.test.images, crop_views(4), counts=(2,), batch_size=16
    )[2]
    value = calibrated_log_likelihood(expected, dataset.test.labels)
    assert found.metrics[f"{CLL}.2"].value == pytest.approx(value, abs=1e-9)
    assert "throughput_share" not in found.metrics


def test_mistakes_answer_in_one_line(dataset, tmp_path):
    with pytest.raises(UserError, match=r"--weights is ''; expected the folder of a finished run"):
        measured(dataclasses.replace(SINGLE, weights=""), dataset, tmp_path)
    absent = dataclasses.replace(SINGLE, weights=str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"--weights is '.*absent', which does not exist"):
        measured(absent, dataset, tmp_path)
    pair = PairConfig(weights="random", model=RESNET_20)
    with pytest.raises(UserError, match=r"--second.weights is ''; expected"):
        measured(pair, dataset, tmp_path)
    with pytest.raises(UserError, match=r"--views.counts has 0; expected|--views.counts is"):
        ViewsConfig(counts=(0,))
    grey = Split(dataset.test.images[..., :1], dataset.test.labels)
    with pytest.raises(UserError, match=r"a network of images with 3 channels; expected one for 1"):
        measured(SINGLE, dataclasses.replace(dataset, test=grey, train=grey), tmp_path)
