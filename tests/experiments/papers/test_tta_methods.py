"""Every method on a small set: what is recorded, what is resumed, and bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest_training import StopAt

from adaptive_nets.data import Dataset, Split
from adaptive_nets.data.device import DeviceSplit, normalise
from adaptive_nets.ensembling import crop_views
from adaptive_nets.ensembling.posterior import chain as chain_lib
from adaptive_nets.models.weights import load_network, save_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.interrupt import Interrupted
from adaptive_nets.runtime.progress import SilentProgress
from experiments.papers.tta.methods import builders
from experiments.papers.tta.methods.bench import black_crops
from experiments.papers.tta.methods.presets import METHODS, PREFIX
from experiments.papers.tta.methods.runner import run
from experiments.suite import execution
from experiments.suite.experiment import Outcome

NAMES = [experiment.id.removeprefix(PREFIX) for experiment in METHODS]


def small_set(size: int = 16) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
        return Split(images, rng.integers(0, 10, count).astype(np.int32))

    return Dataset(
        name="cifar10", source="files", location="memory", num_classes=10,
        class_names=tuple(map(str, range(10))), train=split(40), test=split(size),
        fingerprint="0" * 64, complete=False,
    )  # fmt: skip


def smoke(name: str, **groups: Any) -> Any:
    (experiment,) = (e for e in METHODS if e.id == PREFIX + name)
    config = experiment.presets["smoke"].config
    changed = {
        group: dataclasses.replace(getattr(config, group), **values)
        if isinstance(values, dict)
        else values
        for group, values in groups.items()
    }
    return dataclasses.replace(config, **changed)


def outcome(name: str, folder: Path, progress: Any = None, config: Any = None, **g: Any) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    return run(
        config or smoke(name, **g), dataset=small_set(), directory=folder, seed=0,
        progress=progress or SilentProgress(), title=name,
    )  # fmt: skip


def members(folder: Path) -> list[Any]:
    return [load_network(p).variables for p in sorted((folder / "members").glob("*.safetensors"))]


def kernel(variables: Any) -> np.ndarray:
    return variables["params"]["layer2_0"]["conv1"]["kernel"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folder of a single network, to start from."""
    folder = tmp_path_factory.mktemp("single")
    outcome("single", folder)
    return folder


# The others take long to compile.
_QUICK = ("de", "dropout")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in _QUICK else pytest.mark.slow) for n in NAMES]
)
def test_a_run_records_curves_with_and_without_augmentation(name, tmp_path, trained, monkeypatch):
    monkeypatch.setattr(execution, "load", lambda name, **options: small_set(24))
    given = {} if name in ("single", "de", "sse", "csgld") else {"weights": str(trained)}
    (experiment,) = (e for e in METHODS if e.id == PREFIX + name)
    (record,) = execution.execute(
        experiment, preset="smoke", config=smoke(name, **given), seeds=1, out=tmp_path,
        data_dir=None, progress=SilentProgress(), announce=lambda line: None,
    )  # fmt: skip
    arrays, metrics, folder = record.arrays(), record.metrics, tmp_path / "seed0"
    for prefix in ("", "tta/"):
        np.testing.assert_array_equal(arrays[f"{prefix}counts"], [1, 2])
        for measure in ("error", "ll", "brier", "calibrated_ll", "calibrated_brier"):
            assert np.all(np.isfinite(arrays[prefix + measure]))
        metric = metrics[prefix.replace("/", "_") + "calibrated_ll"]
        assert metric["value"] == arrays[f"{prefix}calibrated_ll"][-1]
    assert load_network(folder / "network.safetensors").note["overrides"] == {"depth": 8}
    assert not (folder / "training").exists()
    if name == "single":
        assert metrics["members"]["value"] == 1
        assert np.ptp(arrays["calibrated_ll"]) == 0
        assert np.ptp(arrays["tta/calibrated_ll"]) > 0
        return
    made = members(folder)
    assert metrics["members"]["value"] == len(made) == 2
    if name == "dropout":
        assert np.any(made[0]["dropout_masks"]["key"] != made[1]["dropout_masks"]["key"])
    else:
        assert not np.allclose(kernel(made[0]), kernel(made[1]))
    assert np.ptp(arrays["ll"]) > 0
    assert set(made[0]["batch_stats"]) == set(made[1]["batch_stats"])


def test_the_deep_ensemble_has_a_reference_over_groupings(tmp_path):
    found = outcome("de", tmp_path)
    for prefix in ("", "tta/"):
        np.testing.assert_array_equal(found.arrays[f"{prefix}reference/counts"], [1, 2])
        last = found.arrays[f"{prefix}reference/mean"][-1]
        assert last == pytest.approx(found.arrays[f"{prefix}calibrated_ll"][-1], abs=1e-6)
        assert found.arrays[f"{prefix}reference/std"][-1] == pytest.approx(0, abs=1e-6)


def test_the_first_member_is_the_network_of_the_other_methods(tmp_path, trained):
    outcome("de", tmp_path)
    np.testing.assert_array_equal(
        kernel(members(tmp_path)[0]),
        kernel(load_network(trained / "network.safetensors").variables),
    )


@pytest.mark.parametrize("name", ["de", pytest.param("swag", marks=pytest.mark.slow)])
def test_an_interrupted_run_resumes_to_the_same_members(name, tmp_path):
    whole = outcome(name, tmp_path / "whole")
    with pytest.raises(Interrupted) as stopped:
        outcome(name, tmp_path / "parts", StopAt(1))
    assert stopped.value.step == 1
    parts = outcome(name, tmp_path / "parts")
    for file in sorted((tmp_path / "whole" / "members").iterdir()):
        assert file.read_bytes() == (tmp_path / "parts" / "members" / file.name).read_bytes()
    assert set(whole.arrays) == set(parts.arrays)
    for array in whole.arrays:
        np.testing.assert_array_equal(whole.arrays[array], parts.arrays[array])
    assert whole.metrics["training_steps"] == parts.metrics["training_steps"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kfac-laplace"])
def test_a_finished_run_trains_and_predicts_nothing_twice(name, tmp_path, trained, monkeypatch):
    given = {"weights": str(trained)}
    first = outcome(name, tmp_path, **given)

    def forbidden(*_: Any, **__: Any):
        raise AssertionError("trained, sampled or predicted again")

    monkeypatch.setattr(chain_lib.Chain, "advance_to", forbidden)
    monkeypatch.setattr(builders, "kronecker_factors", forbidden)
    monkeypatch.setattr(builders, "judge_scales", forbidden)
    monkeypatch.setattr("experiments.papers.tta.methods.predictions.predict_view", forbidden)
    second = outcome(name, tmp_path, **given)
    assert {k: m for k, m in first.metrics.items() if "time" not in k} == {
        k: m for k, m in second.metrics.items() if "time" not in k
    }


def test_a_missing_member_of_a_chain_is_reported(tmp_path):
    config = smoke("sse", schedule={"length": "2 steps"})
    with pytest.raises(Interrupted):
        outcome("sse", tmp_path, StopAt(3), config=config)
    (tmp_path / "members" / "0.safetensors").unlink()
    with pytest.raises(UserError, match="expected at most 2, the step of the next member"):
        outcome("sse", tmp_path, config=config)


def test_training_images_are_cropped_like_views():
    images = np.random.default_rng(1).integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
    data = DeviceSplit(
        {"image": jnp.asarray(images)}, jnp.full((6, 6, 3), 0.4), jnp.full((1, 1, 3), 3.0),
        jnp.float32(255),
    )  # fmt: skip
    key = jax.random.key(0)
    found = black_crops(data, 2)(key, {"image": normalise(data, data.images)})["image"]
    views = crop_views(2)(key, jnp.asarray(images, jnp.float32), 0)
    np.testing.assert_allclose(found, normalise(data, views), rtol=1e-5, atol=1e-5)


def test_laplace_chooses_a_scale_on_held_out_images(tmp_path, trained):
    found = outcome("kfac-laplace", tmp_path, weights=str(trained))
    best = np.argmax(found.arrays["laplace/scores"])
    assert found.metrics["scale"].value == found.arrays["laplace/scales"][best]
    assert found.metrics["scale"].count == 8


@pytest.mark.parametrize(
    ("name", "groups", "message"),
    [
        ("single", {"weights": "absent.safetensors"}, "absent.safetensors', which does not exist"),
        ("single", {"network": {"depth": 9}}, "depth is 9; expected 6 n \\+ 2"),
        ("csgld", {"noise": {"samples": 5}}, "noise.samples is 5; expected at most 2"),
        ("swag", {"swag": {"every": "2 steps"}}, "swag.every is '2 steps'; expected at most half"),
        ("kfac-laplace", {"laplace": {"held_out": 30}}, "laplace.held-out is 30; expected at most"),
        ("kfac-laplace", {"optimiser": {"weight_decay": 0.0}}, "weight-decay is 0.0; expected a"),
        ("single", {"data": {"batch_size": 64}}, "batch-size is 64; expected at most the 40"),
    ],
)
def test_a_mistake_is_one_line(name, groups, message, tmp_path, trained):
    if "weights" not in groups and name == "kfac-laplace":
        groups = {**groups, "weights": str(trained)}
    with pytest.raises(UserError, match=message) as caught:
        outcome(name, tmp_path, **groups)
    assert "\n" not in str(caught.value)


def test_images_standardised_one_by_one_are_refused(tmp_path, trained):
    stored = load_network(trained / "network.safetensors")
    file = tmp_path / "other.safetensors"
    save_network(
        file, model=stored.model, num_classes=10, variables=stored.variables,
        normalisation=dataclasses.replace(stored.normalisation, per_image=True),
    )  # fmt: skip
    with pytest.raises(UserError, match="standardised one by one"):
        outcome("fge", tmp_path, weights=str(file))


def test_another_depth_does_not_fit_the_given_network(tmp_path, trained):
    with pytest.raises(UserError, match="does not fit the network"):
        outcome("fge", tmp_path, weights=str(trained), network={"depth": 14})
