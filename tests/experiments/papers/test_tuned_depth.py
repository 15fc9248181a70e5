"""Second stage from trained weights: its start, its learning rates, its images and bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import write_run

import adaptive_nets as an
from adaptive_nets.data import Dataset, Split
from adaptive_nets.data.device import DeviceSplit, normalise, put_on_devices
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.adaptive.weights import is_head
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights import save_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.config import DataConfig, OptimiserConfig, ScheduleConfig
from adaptive_nets.training.optimiser import make_optimiser
from experiments.papers.sact import figures as sact_figures
from experiments.papers.sact import tuned as sact_tuned
from experiments.papers.sact.fields import TunedScoresConfig
from experiments.report.charts import Figure
from experiments.shared.adaptive_depth.tables import cost_table, tuned_table
from experiments.shared.adaptive_depth.warm_start import plain_rate_factors, warm_start_fn
from experiments.shared.normalisation import check_normalisation, normalised_as
from experiments.suite import config as config_lib
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.registry import find_experiment

GIVEN = InputNormalisation(
    255.0,
    np.array([0.4, 0.5, 0.3], np.float32).reshape(1, 1, 3),
    np.array([4.0, 5.0, 2.0], np.float32).reshape(1, 1, 3),
)


def small_set(num_classes: int = 10) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return Split(images, rng.integers(0, num_classes, count).astype(np.int32))

    return Dataset(
        name=f"cifar{num_classes}", source="files", location="memory", num_classes=num_classes,
        class_names=tuple(map(str, range(num_classes))), train=split(32), test=split(16),
        fingerprint="0" * 64, complete=False,
    )  # fmt: skip


def saved(path, name: str = "resnet20_cifar10", **options: Any) -> str:
    """Writes an initialised network, and returns the file."""
    model = create_model(name)
    variables = abstract_variables(model, model_entry(name).input_shape)
    rng = np.random.default_rng(1)
    drawn = jax.tree.map(
        lambda leaf: (1 + 0.1 * rng.standard_normal(leaf.shape)).astype(np.float32), variables
    )
    options = {"normalisation": GIVEN, "num_classes": 10, **options}
    save_network(path, model=name, variables=drawn, **options)
    return str(path)


def tuned(tmp_path, dataset=None, *, model="resnet20_cifar10", train=None, **halting: Any):
    config = find_experiment("sact.tuned").presets["smoke"].config
    config = config_lib.replace_groups(
        config,
        model=dataclasses.replace(config.train.model, name=model),
        halting=dataclasses.replace(config.halting, **halting),
        **(train or {}),
    )
    return sact_tuned.run(
        config, dataset=dataset or small_set(), directory=tmp_path, seed=0,
        progress=SilentProgress(), title="tuned",
    )  # fmt: skip


@pytest.mark.slow
def test_every_tau_leaves_a_network_and_its_measures(tmp_path):
    still = {
        "optimiser": OptimiserConfig(name="sgd", learning_rate=1e-12),
        "schedule": ScheduleConfig(length="1 steps"),
    }
    found = tuned(tmp_path, train=still, start_from="random", bias=-80.0, taus=(0.1, 0.3)).metrics
    assert found["plain_flops"].value == 2 * an.count_macs("resnet20_cifar10")
    for tau in ("tau0.1", "tau0.3"):
        assert (tmp_path / tau / "network.safetensors").is_file()
        # Every unit ran, and the heads cost too.
        assert found[f"flops_share.{tau}"].value > 100
        assert found[f"loss_correlation.{tau}"].value is None
        assert found[f"units.block2.{tau}"].value == 3


CASES = {
    "no network": ({}, {"start_from": ""}, "--halting.start-from is ''; expected the folder"),
    "another depth": (
        {"name": "resnet32_cifar10"}, {}, "holds the network 'resnet32_cifar10'; expected 'resnet2"
    ),
    "another family": (
        {"name": "lenet5_caffe"}, {}, "holds the network 'lenet5_caffe'; expected 'resnet20_cifar1"
    ),
    "other heads": (
        {"name": "resnetv1_20_act_cifar10"}, {}, "'resnetv1_20_act_cifar10'; expected 'resnet20_ci"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_networks_that_do_not_fit(tmp_path, case):
    file, halting, message = CASES[case]
    halting = {"start_from": saved(tmp_path / "plain.safetensors", **file), **halting}
    with pytest.raises(UserError, match=message) as error:
        tuned(tmp_path, **halting)
    assert "\n" not in str(error.value)


def test_other_classes_are_refused(tmp_path):
    path = saved(tmp_path / "plain.safetensors")
    with pytest.raises(
        UserError, match="a network of 10 classes; expected 100, the classes of --d"
    ):
        tuned(tmp_path, small_set(100), start_from=path)


def test_a_network_without_a_form_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--model.name: model 'vgg16' has no form of adaptive"):
        tuned(tmp_path, model="vgg16", start_from="random")


def test_a_data_set_without_images_is_named(tmp_path):
    rows = Split(numbers=np.zeros((4, 3)))
    sequences = dataclasses.replace(small_set(), name="parity", train=rows, test=rows)
    with pytest.raises(UserError, match=r"--data.name is 'parity'; expected a data set of images"):
        tuned(tmp_path, sequences, start_from="random")


@pytest.mark.parametrize("taus", [(0.2, 0.1), (0.1, 0.1), (0.1, 0.1000001)])
def test_taus_increase(taus):
    with pytest.raises(UserError, match=r"--halting.taus is .*; expected increasing numbers that"):
        TunedScoresConfig(taus=taus)


def test_trained_weights_learn_more_slowly_than_heads():
    params = {
        "layer1_0": {"conv1": {"kernel": jnp.ones(3)}},
        "layer1_0_sact_head": {"conv_local": {"kernel": jnp.ones(3)}},
    }
    config = OptimiserConfig(name="sgd", learning_rate=0.5, momentum=0.0)
    optimiser = make_optimiser(config, lambda step: 0.5, plain_rate_factors(0.2))
    updates, _ = optimiser.update(params, optimiser.init(params), params)
    np.testing.assert_allclose(updates["layer1_0"]["conv1"]["kernel"], -0.1)
    np.testing.assert_allclose(updates["layer1_0_sact_head"]["conv_local"]["kernel"], -0.5)
    assert plain_rate_factors(1.0) is None


def on_device(data: DataConfig) -> DeviceSplit:
    return put_on_devices(small_set(), data, lambda split: split)[1]


def test_images_are_normalised_as_the_network_expects():
    data = normalised_as(DataConfig(centre="source"), GIVEN, flag="--halting.start-from")
    test = on_device(data)
    np.testing.assert_allclose(normalise(test, test.images), GIVEN.apply(test.images), rtol=1e-5)
    check_normalisation(GIVEN, test, source="")
    with pytest.raises(UserError, match="x was trained with another normalisation of the images"):
        check_normalisation(GIVEN, on_device(DataConfig()), source="x")


def test_a_mean_image_is_that_of_the_training_set():
    offset = np.zeros((32, 32, 3), np.float32)
    theirs = dataclasses.replace(GIVEN, offset=offset)
    data = normalised_as(DataConfig(centre="source"), theirs, flag="--halting.start-from")
    assert (data.centre, data.standardise, data.mean) == ("pixel", True, ())
    with pytest.raises(UserError, match="another normalisation"):
        check_normalisation(theirs, on_device(data), source="")


def test_other_settings_of_images_are_kept():
    data = DataConfig(centre="pixel")
    assert normalised_as(data, GIVEN, flag="") is data
    with pytest.raises(UserError, match=r"--data\.centre is 'source', but --x names"):
        normalised_as(DataConfig(centre="source"), None, flag="--x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"centre": "source"}, "--data.centre is 'source'; expected none, channel, pixel or middl"),
        ({"mean": (0.5,), "std": (1.0,)}, "--data.mean has 1 values; expected 3, the channels"),
    ],
)
def test_normalisations_that_cannot_be_had(data, message):
    with pytest.raises(UserError, match=message):
        on_device(DataConfig(**data))


def test_mean_and_deviation_belong_together():
    with pytest.raises(UserError, match=r"--data\.std is .*; expected 3 values, as many"):
        DataConfig(mean=(0.1, 0.2, 0.3))


def records(tmp_path, *seeds: int):
    """Made-up records of SACT, one for each seed, and of PACT."""
    shapes = {"halting": (4, 20), "reached": (5,), "weight": (5,), "picture_map": (2, 8, 8)}
    arrays: dict[str, np.ndarray] = {}
    metrics = {"plain_accuracy": 92.0, "plain_flops": 100e6}
    for i, tau in enumerate(("tau0.3", "tau0.5", "tau1")):
        for name, value in (
            ("test_accuracy", 91.0 - i), ("flops", (80 - 10 * i) * 1e6), ("flops_std", 5e6),
            ("flops_share", 80.0 - 10 * i), ("ponder_ratio", 1.25), ("loss_correlation", 0.25),
            ("error_correlation", 0.125), ("mode_gap", 0.5), ("dead_units", 0.0),
        ):  # fmt: skip
            metrics[f"{name}.{tau}"] = value
        arrays |= {f"{n}.block1.{tau}": np.ones(shape) for n, shape in shapes.items()}
        arrays |= {
            f"halting_edges.{tau}": np.linspace(0, 1, 21),
            f"ponder_map.{tau}": np.ones((32, 32)),
            f"pictures.{tau}": np.zeros((2, 32, 32, 3), np.uint8),
        }

    def written(name: str, seed: int, change: float):
        found = {
            key: Metric(value + change * key.startswith("test_accuracy"), "%", 10000)
            for key, value in metrics.items()
        }
        done = Outcome(found, arrays, seconds=1.0, steps=1955)
        return write_run(tmp_path, name, done, {}, seed=seed)

    found = [written("sact.tuned.resnet32-sact", seed, 0.2 * seed) for seed in seeds]
    return [*found, written("pact.tuned.resnet32", 0, 0.0)]


def test_the_table_has_a_row_for_each_tau(tmp_path):
    table = tuned_table(records(tmp_path, 0), prefix="sact.")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[2:6] for row in rows] == [
        ["plain", "92.00", "100.0", "100.0"],
        ["0.3", "91.00", "80.0 ± 5.0", "80.0"],
        ["0.5", "90.00", "70.0 ± 5.0", "70.0"],
        ["1", "89.00", "60.0 ± 5.0", "60.0"],
    ]
    assert rows[1][6:] == ["1.250", "0.250", "0.125", "0.50"]
    # The table of runs with one tau leaves them out.
    assert len(cost_table(records(tmp_path, 0), prefix="sact.").splitlines()) == 2


def test_the_trade_off_has_both_methods_and_the_published_point(tmp_path):
    found = [f for f in sact_figures.figures(records(tmp_path, 0, 1)) if isinstance(f, Figure)]
    rows = found[0].data["rows"]
    assert {row[0] for row in rows} == {
        *(f"{m}, tau {tau}" for m in ("SACT", "PACT, thresholded") for tau in (0.3, 0.5, 1)),
        "authors' SACT, pre-activation, tau 0.01",
        "plain ResNet-32",
    }
    by_name = {row[0]: row for row in rows}
    # Two seeds: the deviation over them; one: the standard error over images.
    assert by_name["SACT, tau 0.5"][3:] == [90.1, pytest.approx(0.1414, abs=1e-3)]
    assert by_name["PACT, thresholded, tau 0.5"][4] == pytest.approx(0.3, abs=1e-3)
    assert by_name["authors' SACT, pre-activation, tau 0.01"][1] == pytest.approx(
        82_393_168, rel=1e-5
    )
    maps = [f for f in found if f.title.startswith("Ponder maps, tau")]
    assert [f.title.rpartition(" ")[2] for f in maps] == ["0.3", "0.5", "1"]
    assert [f.folded for f in maps] == [False, True, True]
    assert sact_figures.PICTURES["sact-trained-weights.svg"](records(tmp_path, 0)).startswith(
        "<svg"
    )
    assert sact_figures.PICTURES["sact-trained-weights.svg"]([]) == ""


@pytest.mark.parametrize(
    "experiment", ["pact.trained.reinforce-3", "sact.cifar10.r32-sact-tau1e-2"]
)
def test_a_plain_network_starts_every_kind_of_training(tmp_path, experiment):
    plain = "resnet20_cifar10" if experiment.startswith("pact") else "resnetv2_32_cifar10"
    where = saved(tmp_path / "plain.safetensors", plain)
    halting = find_experiment(experiment).presets["smoke"].config.halting
    name = "resnetv1_20_pact_cifar10" if plain == "resnet20_cifar10" else "resnet32_sact_cifar10"
    halting = dataclasses.replace(halting, start_from=where)
    start = warm_start_fn(halting, name, seed=0)
    shapes = abstract_variables(create_model(name), (32, 32, 3))
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    params, state = start(variables.pop("params"), {**variables, "baseline": {"total": 3.0}})
    assert state["baseline"] == {"total": 3.0}
    scope = "conv1" if "conv1" in params else next(n for n in params if n.startswith("conv"))
    assert float(jnp.abs(params[scope]["kernel"] - 1).mean()) == pytest.approx(0.08, abs=0.02)
    heads = [leaves for scope, leaves in params.items() if is_head(scope)]
    assert heads
    assert all(float(head["bias"]) == halting.bias for head in heads)
