"""Sparse weights, adaptive depth and averaged views in one network: tasks, costs, mistakes."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import write_run

from adaptive_nets.data import Dataset, Split
from adaptive_nets.layers.sparse_network import LOG_SIGMA2, SparseNetwork
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.config import ModelConfig
from adaptive_nets.training.duration import Timing
from experiments.__main__ import main
from experiments.papers.composition.configs import EXPERIMENTS
from experiments.papers.composition.experiment import composition_task, run
from experiments.papers.composition.fields import StartConfig
from experiments.papers.composition.figures import figures
from experiments.papers.composition.measures import METHODS, Network, cost_metrics
from experiments.papers.composition.tables import NETWORKS, methods_table
from experiments.report.charts import Figure, Missing
from experiments.shared.ensembling.network import load_trained
from experiments.suite.experiment import Metric, Outcome

SMOKE = EXPERIMENTS[0].presets["smoke"].config
NORMALISATION = model_entry("resnet20_cifar10").normalisation.to_input_normalisation()


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(0)
    split = Split(
        rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8),
        rng.integers(0, 10, 4).astype(np.int32),
    )
    return Dataset(
        name="cifar10", source="files", location="memory", num_classes=10,
        class_names=tuple(map(str, range(10))), train=split, test=split, fingerprint="0" * 64,
        complete=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def plain(dataset):
    return load_trained("random", "resnet20_cifar10", dataset, seed=0)


@pytest.mark.parametrize("label", list(METHODS))
def test_training_starts_from_the_trained_weights(plain, dataset, label):
    methods = METHODS[label]
    task = composition_task(SMOKE, plain, dataset, methods)
    shapes = jax.eval_shape(
        lambda key: task.model.init(key, jnp.zeros((1, 32, 32, 3)), train=False), jax.random.key(1)
    )
    initial = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    params = initial.pop("params")
    assert task.start is not None
    started, state = task.start(params, initial)
    assert jax.tree.structure(started) == jax.tree.structure(params)
    weights = plain.variables["params"]["layer2_1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(started["layer2_1"]["conv1"]["kernel"], weights)
    np.testing.assert_array_equal(
        jax.tree.leaves(state)[0], jax.tree.leaves(plain.variables["batch_stats"])[0]
    )
    assert (LOG_SIGMA2 in started["layer2_1"]["conv1"]) == methods.sparse
    heads = [name for name in started if name.endswith("_head")]
    assert bool(heads) == methods.adaptive
    in_heads = jax.tree_util.tree_leaves_with_path([started[name] for name in heads])
    assert not any(path[-1].key == LOG_SIGMA2 for path, _ in in_heads)
    factors = jax.tree.leaves(task.rate_factors(started))
    assert set(factors) == {
        SMOKE.tuning.plain_rate,
        *([1.0] if methods.sparse else []),
        *([SMOKE.tuning.head_rate] if methods.adaptive else []),
    }


def test_the_loss_has_the_divergence_of_the_bound(plain, dataset):
    timing = Timing.of("100 steps", batch_size=2, examples=4)
    config = dataclasses.replace(
        SMOKE,
        variational=dataclasses.replace(SMOKE.variational, kl_start="0 steps", kl_full="10 steps"),
    )
    task = composition_task(config, plain, dataset, METHODS["sparse"])
    kernel = jnp.ones((2, 3))
    params = {"fc": {"kernel": kernel, LOG_SIGMA2: jnp.full((2, 3), -1.0)}}
    batch = {"image": jnp.zeros((2, 32, 32, 3)), "label": jnp.array([0, 3])}
    objective = task.objective(timing)
    logits = jnp.zeros((2, 10))
    losses = [objective(logits, batch, params, jnp.int32(step))[0] for step in (0, 5, 10, 90)]
    divergence = 6 * (
        0.63576 * (1 - 1 / (1 + math.exp(-(1.87320 + 1.48695 * -1.0))))
        + 0.5 * math.log1p(math.exp(1.0))
    )
    found = np.asarray(losses, np.float64) - float(losses[0])
    np.testing.assert_allclose(
        found, np.array([0, 0.5, 1, 1]) * divergence / 4, rtol=1e-4, atol=1e-5
    )


def test_flops_of_kept_weights_are_in_proportion(plain, dataset):
    base = Network("resnet20_cifar10", plain.module, plain.variables, None)
    costs = cost_metrics(base, SMOKE, NORMALISATION, dataset, base)
    assert {name: metric.value for name, metric in costs.items()} == {
        "weights_kept": 100.0, "flops": pytest.approx(2 * 40_551_040, rel=1e-3),
        "flops_share": 100.0, "kept_flops_share": 100.0,
    }  # fmt: skip
    sparse = SparseNetwork(create_model("resnet20_cifar10"), log_sigma2_init=-60.0)
    params = sparse.with_noise(plain.variables["params"])
    # Everything but the first convolution keeps all weights; that one keeps none.
    params["conv1"][LOG_SIGMA2] = jnp.full_like(params["conv1"][LOG_SIGMA2], 20.0)
    network = dataclasses.replace(base, posterior=params)
    costs = cost_metrics(network, SMOKE, NORMALISATION, dataset, base)
    first = 32 * 32 * 27 * 16
    share = costs["kept_flops_share"].value
    assert share == pytest.approx(100 * (1 - first / (costs["flops"].value / 2)), rel=1e-3)
    assert costs["weights_kept"].value == pytest.approx(100 * (1 - 432 / 268_336), rel=1e-3)


def test_the_table_shows_each_network_and_the_figure_its_views(tmp_path):
    assert methods_table([]) == "Not measured: there is no record.\n"
    assert isinstance(figures([])[0], Missing)
    costs = {"weights_kept": 25.0, "flops_share": 60.0, "kept_flops_share": 20.0, "flops": 1e6}
    views = {f"{kind}{m}": 8.5 for kind in ("", "crops_") for m in ("error", "calibrated_ll")}
    metrics = {
        f"{name}.{label}": Metric(value, "%", 10)
        for label in NETWORKS
        for name, value in (costs | views).items()
    }
    outcome = Outcome(metrics, {}, seconds=1.0, steps=600)
    record = write_run(tmp_path, EXPERIMENTS[0].id, outcome, {}, preset="quick")
    rows = methods_table([record]).splitlines()
    assert len(rows) == 2 + len(NETWORKS)
    assert "| both | 25.0 | 60.0 | 20.0 | 2 | 8.50 | 8.50 | – |" in rows[-1]
    (figure,) = figures([record])
    assert isinstance(figure, Figure)
    assert [row[1:] for row in figure.data["rows"][:2]] == [["", 20.0, 8.5], ["crops_", 40.0, 8.5]]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--start.weights", "random", "--tuning.networks", "none"], "--tuning.networks"),
        (["--start.weights", "random", "--variational.kl-start", "60%"], "variational.kl-start"),
        (["--start.weights", "none.th"], "none.th"),
    ],
)
def test_wrong_flags_take_one_line(tmp_path, capsys, flags, said):
    assert main(["run", "composition.cifar10", "--out", str(tmp_path / "run"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run" / "seed0").exists()


@pytest.mark.parametrize(
    ("weights", "model", "said"),
    [("", "resnet20_cifar10", "--start.weights is ''"), ("random", "nin_cifar10", "--model.name")],
)
def test_other_networks_take_one_line(tmp_path, dataset, complains, weights, model, said):
    train = dataclasses.replace(SMOKE.train, model=ModelConfig(name=model))
    config = dataclasses.replace(SMOKE, train=train, start=StartConfig(weights=weights))
    call = lambda: run(  # noqa: E731
        config, dataset=dataset, directory=tmp_path, seed=0, progress=SilentProgress(), title=""
    )
    complains(call, said)
    assert not list(tmp_path.iterdir())
