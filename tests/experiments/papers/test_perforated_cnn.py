"""The pieces of PerforatedCNN's experiments, with networks that take a moment."""

from __future__ import annotations

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import made_up

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.data import Dataset, Split
from adaptive_nets.models import create_model
from adaptive_nets.models.weights.stored import InputNormalisation, save_network
from adaptive_nets.perforation import conv_layers, make_plan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.config import DataConfig, ModelConfig, TrainConfig
from experiments.__main__ import main
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import (
    LayerConfig,
    RuleConfig,
    RuledConfig,
    SearchConfig,
    TimingConfig,
    TradeoffConfig,
    TradeoffRunConfig,
)
from experiments.papers.perforated_cnn.experiments import (
    imagenet_errors,
    search_results,
    searched,
    source,
    tradeoff,
)
from experiments.papers.perforated_cnn.experiments.tradeoff import (
    mean_curves,
    perforation_best,
    tradeoff_points,
)
from experiments.papers.perforated_cnn.figures import curves as figures_curves
from experiments.papers.perforated_cnn.figures import figures
from experiments.papers.perforated_cnn.figures import search as figures_search
from experiments.report.charts import Figure, Missing
from experiments.suite.comparison import compare
from experiments.suite.groups import group_records
from experiments.suite.records import Record
from experiments.suite.registry import experiments
from experiments.suite.run_inputs import resolve

SHAPE = (12, 12, 3)


class Small(nn.Module):
    """Two convolutions with a pooling after each, and a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.max_pool(nn.relu(nn.Conv(4, (3, 3), name="first")(x)), (2, 2), (2, 2))
        x = nn.relu(nn.Conv(8, (3, 3), name="second")(x))
        return nn.Dense(10, name="head")(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def small():
    model = Small()
    variables = model.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), train=False)
    return model, variables, conv_layers(model, variables, SHAPE)


@pytest.mark.parametrize(("reduction", "falloff"), [(1.0, 0.0), (2.0, 0.0), (3.0, 0.5)])
def test_the_rule_perforates_as_little_as_is_enough(small, key, reduction, falloff):
    model, variables, layers = small
    macs = ExecutedMacs(model, variables, SHAPE)
    options = {"reduction": reduction, "falloff": falloff, "kind": "uniform"}
    plan = measures.plan_with_fewer_macs(key, layers, macs, **options)
    assert macs(plan) * reduction <= macs.whole
    kept = {name: mask.kept for name, mask in plan.layers.items()}
    if reduction == 1:
        assert not kept
        return
    # One position more in the dearer layer would be too many.
    more = make_plan(
        key, layers,
        {n: max(0.0, 1 - (k + 1.5) / plan.layers[n].mask.size) for n, k in kept.items()},
        "uniform",
    )  # fmt: skip
    assert macs(more) * reduction > macs.whole
    first, second = plan.layers["first"].keep, plan.layers["second"].keep
    if falloff:
        assert first == pytest.approx(second * (36 / 144) ** falloff, abs=0.03)
    else:
        assert first == pytest.approx(second, abs=0.03)


def test_a_reduction_out_of_reach_is_named(small, key):
    model, variables, layers = small
    macs = ExecutedMacs(model, variables, SHAPE)
    with pytest.raises(UserError, match=r"--rule.reduction is 500; .* at most"):
        measures.plan_with_fewer_macs(key, layers, macs, reduction=500)


def test_costs_and_times_of_a_perforated_network(small, key):
    model, variables, layers = small
    macs = ExecutedMacs(model, variables, SHAPE)
    plan = make_plan(key, layers, {"first": 0.75, "second": 0.5}, "uniform")
    cost = measures.cost_metrics(model, variables, plan, image_shape=SHAPE, macs=macs)
    first, second, head = 144 * 27 * 4, 36 * 36 * 8, 80
    assert cost["macs"].value == pytest.approx((first + second + head) / 1e9)
    assert cost["perforated_macs"].value == pytest.approx((first / 4 + second / 2 + head) / 1e9)
    assert cost["memory_reduction"].value > 1
    speed = measures.speed_metrics(
        model, variables, plan, image_shape=SHAPE, macs_reduction=2.0,
        config=TimingConfig(batches=(1, 4), seconds=0.0),
    )  # fmt: skip
    assert speed["speedup"] == speed["speedup_batch4"]
    assert {"speedup_batch1", "efficiency_batch1", "milliseconds_batch4"} <= set(speed)
    assert speed["efficiency"].value == pytest.approx(speed["speedup"].value / 2)
    alone = measures.layer_metrics(layers[0], plan.layers["first"], batch=2, seconds=0.0)
    share = 100 * alone["layer_speedup"].value / 4
    assert alone["speed_share"].value == pytest.approx(share)


def test_another_device_is_refused():
    with pytest.raises(UserError, match=r"--perforation.device is 'gpu', but JAX runs on 'cpu'"):
        measures.check_device("gpu")


def tiny_dataset(size=8) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count):
        images = rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8)
        return Split(images, rng.integers(0, 10, count).astype(np.int32))

    return Dataset(
        "cifar10", "files", "memory", 10, tuple("0123456789"), split(20), split(6), "f" * 64, True
    )


DATA = DataConfig(name="cifar10", centre="pixel", standardise=True)
MODEL = ModelConfig(name="nin_cifar10")


def stored_network(path, dataset, *, scale=1.0, model="nin_cifar10"):
    network = create_model(model)
    example = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), example, train=False))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
    plain = source.load_source(DATA, MODEL, "random", dataset, seed=0)
    offset, deviation = jax.device_get((plain.train.offset, plain.train.scale))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(
        path, model=model, num_classes=10, variables=variables,
        normalisation=InputNormalisation(255.0, offset, scale * deviation),
    )  # fmt: skip


def test_a_source_is_found_in_its_run_and_its_images_are_the_networks(tmp_path):
    dataset = tiny_dataset()
    stored_network(tmp_path / "seed0" / "network.safetensors", dataset)
    for where in (tmp_path, tmp_path / "seed0", tmp_path / "seed0" / "network.safetensors"):
        found = source.load_source(DATA, MODEL, str(where), dataset, seed=0)
        assert float(found.variables["params"]["conv1"]["kernel"].mean()) == pytest.approx(0.01)
    images, labels = found.training_images(7, seed=3)
    again, _ = found.training_images(7, seed=3)
    np.testing.assert_array_equal(images, again)
    assert images.shape == (7, 8, 8, 3)
    whole, all_labels = found.training_images(1000, seed=3)
    np.testing.assert_allclose(whole.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_array_equal(all_labels, dataset.train.labels)
    assert {image.tobytes() for image in images} <= {image.tobytes() for image in whole}
    assert len(labels) == 7
    assert found.test_images()[0].shape == (6, 8, 8, 3)


def test_a_wrong_source_is_named(tmp_path):
    dataset = tiny_dataset()

    def message(where):
        with pytest.raises(UserError) as error:
            source.load_source(DATA, MODEL, str(where), dataset, seed=0)
        return str(error.value)

    assert "--perforation.source is ''; expected the folder of a run" in message("")
    assert "which holds no trained network" in message(tmp_path)
    stored_network(tmp_path / "a" / "network.safetensors", dataset, scale=2.0)
    assert "was trained with another normalisation of the images" in message(tmp_path / "a")
    stored_network(tmp_path / "b" / "network.safetensors", dataset, model="nin_svhn")
    assert "holds the network 'nin_svhn'; expected 'nin_cifar10'" in message(tmp_path / "b")


def test_a_search_begins_from_anothers(tmp_path):
    there = tmp_path / "run" / "seed0" / "search"
    (there / "plans").mkdir(parents=True)
    (there / "search.json").write_text("{}")
    (there / "plans" / "step001.safetensors").write_bytes(b"x")
    searched._copy_search(tmp_path / "run", tmp_path / "new", seed=0)
    assert (tmp_path / "new" / "search.json").read_text() == "{}"
    assert (tmp_path / "new" / "plans" / "step001.safetensors").exists()
    with pytest.raises(UserError, match=r"--search.begin-from is .* holds no search of seed 1"):
        searched._copy_search(tmp_path / "run", tmp_path / "newer", seed=1)


def test_perforation_is_compared_at_equal_speed():
    methods = ["perforation", "perforation", "stride", "stride", "smaller input"]
    speedups = [2.0, 3.0, 1.5, 2.5, 4.0]
    # At 2 x stride interpolates to 15, smaller input to 13 and a third; at 3 x only the latter.
    errors = [13.0, 20.0, 12.0, 18.0, 20.0]
    assert perforation_best(methods, speedups, errors, whole=10.0) == (50.0, 2)
    errors[1] = 16.0
    assert perforation_best(methods, speedups, errors, whole=10.0) == (100.0, 2)
    assert perforation_best(methods[:2], speedups[:2], errors[:2], whole=10.0) == (None, 0)
    assert perforation_best(methods[:3], [1.2, 9.0, 1.5], errors[:3], whole=10.0)[1] == 1


def test_draws_of_a_point_are_averaged():
    points = [("perforation", "0.5"), ("stride", "0.5"), ("perforation", "0.5")]
    methods, speedups, errors = mean_curves(points, [2.0, 3.0, 2.5], [10.0, 20.0, 13.0])
    assert methods == ["perforation", "stride"]
    assert (speedups, errors) == ([2.25, 3.0], [11.5, 20.0])


def test_increases_are_against_the_untuned_and_the_equally_tuned_network():
    before, after, tuned, control = (
        {"error": error, "count": 200} for error in (0.30, 0.35, 0.31, 0.28)
    )
    metrics = search_results.error_metrics(before, after, tuned, control, note="network x")
    values = {name: pytest.approx(metric.value) for name, metric in metrics.items()}
    assert values == {
        "error": 30, "perforated_error": 35, "tuned_error": 31, "control_error": 28,
        "error_increase": 5, "tuned_error_increase": 1, "tuned_increase_over_control": 3,
    }  # fmt: skip


def test_masks_of_draws_differ_and_have_equal_costs(tmp_path):
    dataset = tiny_dataset(16)
    stored_network(tmp_path / "network.safetensors", dataset)
    found = source.load_source(DATA, MODEL, str(tmp_path / "network.safetensors"), dataset, seed=0)
    config = TradeoffRunConfig(
        TrainConfig(data=DATA, model=MODEL),
        tradeoff=TradeoffConfig(keeps=(0.9,), sizes=(12,), draws=2, kind="uniform"),
    )
    points = tradeoff_points(found, config, seed=3)
    assert [(p.method, p.setting, p.draw) for p in points] == [
        ("perforation", "0.9", 0), ("stride", "0.9", 0), ("perforation", "0.9", 1),
        ("stride", "0.9", 1), ("smaller input", "12", 0),
    ]  # fmt: skip
    assert len({p.name for p in points}) == 5
    first, second = (points[i].wrap(found.model).plan for i in (0, 2))
    assert first != second
    assert points[0].macs == points[2].macs
    # A search fixes the masks; the ties of nearest positions are drawn again.
    again = tradeoff._with_new_ties(first, jax.random.key(1))
    for name, layer in again.layers.items():
        np.testing.assert_array_equal(layer.mask, first.layers[name].mask)
    assert again != first


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SearchConfig(target=0.5), "--search.target is 0.5; expected a number in [1, "),
        (lambda: SearchConfig(images=0), "--search.images is 0; expected a positive number"),
        (lambda: SearchConfig(kinds=()), "--search.kinds is (); expected at least one"),
        (lambda: SearchConfig(runs=2), "--search.runs is 2; expected a whole number from 3"),
        (lambda: LayerConfig(draws=0), "--layer.draws is 0; expected a positive number"),
        (lambda: TradeoffConfig(draws=0), "--tradeoff.draws is 0; expected a positive number"),
        (lambda: TimingConfig(batches=(0,)), "--timing.batches is (0,)"),
        (lambda: TimingConfig(seconds=-1.0), "--timing.seconds is -1.0"),
        (lambda: RuleConfig(reduction=0.5), "--rule.reduction is 0.5"),
        (lambda: RuleConfig(rate=1.0), "--rule.rate is 1.0; expected a number in [0, 1)"),
        (lambda: RuleConfig(falloff=2.0), "--rule.falloff is 2.0"),
        (
            lambda: LayerConfig(rates=(0.5, 0.25)),
            "--layer.rates is (0.5, 0.25); expected increasing numbers in (0, 1)",
        ),
        (lambda: LayerConfig(rates=(0.5, 1.0)), "--layer.rates is (0.5, 1.0)"),
        (lambda: TradeoffConfig(keeps=(0.0,)), "--tradeoff.keeps is (0.0,)"),
        (lambda: TradeoffConfig(sizes=(0,)), "--tradeoff.sizes is (0,)"),
    ],
)
def test_values_out_of_range_are_named(make, message):
    with pytest.raises(UserError) as error:
        make()
    assert str(error.value).startswith(message)


def record(tmp_path, experiment, arrays, *, preset="quick", history=None, **metrics):
    content = made_up(experiment, preset=preset, train=50000, **metrics)
    content["history"] = history or {}
    path = tmp_path / experiment / "record.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    np.savez(path.with_name("arrays.npz"), **arrays)
    return Record(content, path)


def some_records(tmp_path):
    two = np.array([0.5, 0.75])
    line = {
        "rate": two, "loss_increase": two, "error_increase": 3 * two, "layer_speedup": 2 * two,
        "promised": 1 / (1 - two),
    }  # fmt: skip
    search = {
        "search_loss": np.array([1.0, 1.1, 1.3]),
        "search_reduction": np.array([1.0, 1.2, 1.5]),
        "search_macs_reduction": np.array([1.0, 1.3, 1.6]),
        "search_layer": np.array(["conv2", "conv1"]),
        "search_keep": np.array([2 / 3, 2 / 3]),
        "mask.conv1": np.eye(32, dtype=bool),
        "mask.conv2": np.eye(16, dtype=bool),
        "impact.conv1": np.ones((32, 32), np.float32),
    }
    points = {
        "method": np.array([0, 1, 2]),
        "setting": np.array(["0.5", "0.5", "16"]),
        **dict.fromkeys(("speedup", "macs_reduction", "error", "tuned_error"), np.arange(2.0, 5)),
    }
    paper = "perforated_cnn"
    return [
        *(record(tmp_path, f"{paper}.figure.single-layer-{k}", line, speed_share=80.0)
          for k in ("grid", "impact")),
        record(tmp_path, f"{paper}.resnet.layer-regular", line, speed_share=80.0),
        record(tmp_path, f"{paper}.resnet.resnet32-2x", search, error=10.0, perforated_error=14.0),
        record(tmp_path, f"{paper}.figure.nin-tradeoff", points, error=10.0, perforation_best=100),
        record(
            tmp_path, f"{paper}.table3.nin-cpu-2x", search, error=10.0, perforated_error=14.0,
            speedup=2.0, history={"test/error": [[10, 0.13], [20, 0.12]]},
            **{"centre_bias__conv1": 1.2, "pooling_correlation__conv1": 0.5},
        ),
        record(
            tmp_path, f"{paper}.table3.alexnet-cpu-2x", {}, macs_reduction=2.1, speedup=2.0,
            **{"speedup_batch1": 1.5, "speedup_batch16": 2.0},
        ),
    ]  # fmt: skip


def test_every_figure_is_drawn_from_records(tmp_path):
    drawn = figures(some_records(tmp_path))
    titles = [f.title for f in drawn if isinstance(f, Figure)]
    assert titles == [
        "Kinds of masks", "Kinds of masks", "Perforation against its baselines",
        *("Path of the search", "Masks", "Average impact", "Fine-tuning"),
        *("Path of the search", "Masks", "Average impact"),
        "Speed-up of whole networks",
    ]  # fmt: skip
    for figure in drawn:
        if isinstance(figure, Figure):
            assert figure.svg or figure.pictures
            for row in figure.data.get("rows", ()):
                assert len(row) == len(figure.data["columns"])
            json.dumps(figure.data, allow_nan=False)
    missing = [f.commands[-1] for f in drawn if isinstance(f, Missing)]
    assert missing[0] == (
        "adaptive-nets run perforated_cnn.table3.nin-cpu-3x --preset quick "
        "--perforation.source runs/nin"
    )
    assert missing[1:] == [
        f"adaptive-nets run perforated_cnn.resnet.resnet32-{row} --preset quick "
        "--perforation.source FILE"
        for row in ("1p5x", "1p7x", "3x")
    ]


def test_points_of_several_draws_have_error_bars_and_their_number(tmp_path):
    two = np.array([0.5, 0.75])
    line = {
        "rate": two, "loss_increase": two, "error_increase": two, "layer_speedup": 2 * two,
        "promised": 1 / (1 - two), "loss_deviation": two, "error_deviation": two,
        "draws": np.array(5),
    }  # fmt: skip
    (group,) = group_records([record(tmp_path, "perforated_cnn.figure.single-layer-grid", line)])
    figure = figures_curves.single_layer([group])
    assert "Every point is the mean of 5 masks" in figure.caption
    assert figure.data["rows"][0][:2] == ["grid", 5]
    points = {
        "method": np.array([0, 0, 0, 1, 2]),
        "setting": np.array(["0.5", "0.5", "0.5", "0.5", "16"]),
        "draw": np.array([0, 1, 2, 0, 0]),
        **dict.fromkeys(("speedup", "macs_reduction", "error"), np.arange(2.0, 7)),
        "tuned_error": np.array([10.0, 11.0, 12.0, 20.0, 30.0]),
        "control_error": np.array([8.0, 10.0]),
    }
    name = "perforated_cnn.figure.nin-tradeoff"
    (group,) = group_records([record(tmp_path, name, points, error=10.0)])
    figure = figures_curves.tradeoff(group)
    rows = figure.data["rows"]
    assert rows[0] == ["whole", "", 2, 1, 1, 10, 9, pytest.approx(2**0.5, rel=1e-3)]
    assert rows[1] == ["perforation", "0.5", 3, 3, 3, 3, 11, 1]
    assert rows[2][:3] == ["stride", "0.5", 1]
    assert rows[2][-1] is None
    assert "means of 3 draws" in figure.caption
    assert "tuned as long as every point" in figure.caption


def test_without_records_every_section_says_what_makes_it():
    for figure in figures([]):
        assert isinstance(figure, Missing)
        assert all(c.startswith("adaptive-nets run perforated_cnn.") for c in figure.commands)


def test_records_without_arrays_are_passed_over(tmp_path):
    (group,) = group_records([record(tmp_path, "perforated_cnn.table3.nin-cpu-2x", {})])
    for maker in (figures_search.search_path, figures_search.masks, figures_search.impact_maps,
                  figures_search.tuning, figures_curves.tradeoff):  # fmt: skip
        assert maker(group) is None
    assert figures_curves.single_layer([group]) is None
    assert figures_curves.whole_networks([group]) is None


def test_what_a_network_costs_needs_no_data_and_errors_stay_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = "perforated_cnn.table1.nin-cost"
    code = main(["run", name, "--preset", "smoke", "--out", "run"])
    err = capsys.readouterr().err
    assert code == 0, err
    assert "data: none" in err
    found = Record(json.loads((tmp_path / "run/seed0/record.json").read_text()), tmp_path)
    assert found.dataset["train"] == 0
    assert found.metric("conv_layers").value == 3
    assert found.metric("macs").value == pytest.approx(0.22, abs=0.005)
    assert found.metric("macs_reduction").value == 1
    experiment = experiments()["perforated_cnn.table3.alexnet-cpu-2x"]
    measured = made_up(experiment.id, speedup=2.0, macs_reduction=2.1, memory_reduction=1.9)
    measured["dataset"] |= {"train": 0, "complete": True}
    (cells,) = compare([experiment], [Record(measured, tmp_path)]).values()
    verdicts = {c.measure.name: c.verdict for c in cells if c.group is not None}
    assert verdicts == {
        "speedup": "measured", "macs_reduction": "chosen", "memory_reduction": "chosen",
        "top5_increase": "not run", "tuned_top5_increase": "not run",
    }  # fmt: skip
    assert not RuledConfig().needs_data
    sourced = dataclasses.replace(RuledConfig().perforation, source="x")
    assert RuledConfig(perforation=sourced).needs_data


def test_top_1_and_top_5_errors_are_counted_over_every_image_once(rng):
    class Table:
        """Logits are the pixels themselves."""

        def apply(self, variables, images, train=False):
            return images.reshape(len(images), -1)

    pixels = rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1).astype(np.uint8)
    labels = rng.integers(0, 12, 9)
    padded = np.concatenate([pixels, pixels[-1:]]).reshape(5, 2, 2, 2, 3)
    batches = [
        {
            "image": padded[i],
            "label": np.concatenate([labels, labels[-1:]]).reshape(5, 2)[i],
            "weight": np.array([1, float(i < 4)], np.float32),
        }
        for i in range(5)
    ]
    normalisation = InputNormalisation(
        1.0, np.zeros((1, 1, 3), np.float32), np.ones((1, 1, 3), np.float32)
    )
    found = imagenet_errors.errors(
        {"whole": Table(), "perforated": Table()}, {}, batches, normalisation,
        progress=SilentProgress(), title="", total=5,
    )  # fmt: skip
    rank = 11 - pixels[np.arange(9), labels].astype(int)
    expected = {"error": np.mean(rank >= 1), "top5_error": np.mean(rank >= 5), "count": 9}
    assert found["whole"] == pytest.approx(expected)
    metrics = imagenet_errors.error_metrics(found)
    assert metrics["top5_increase"].value == 0
    assert metrics["top5_error"].count == 9


def test_imagenets_rows_name_what_they_lack():
    with pytest.raises(UserError, match=r"source is 'absent.pth', which does not exist; expected"):
        resolve("absent.pth", source.SOURCE, flag="perforation.source", seed=0)
    with pytest.raises(UserError, match=r"--data.name is 'cifar10'.* expected a prepared"):
        imagenet_errors.validation_batches(tiny_dataset(), RuledConfig(), (224, 224, 3))
