"""Greedy policy search as an experiment: divisions, pool, resume, tables, mistakes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from records_for_tests import write_run

from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.data.stratified import stratified_subset
from adaptive_nets.ensembling import Policy, SubPolicy, load_policy, save_policy
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from adaptive_nets.training.config import ModelConfig
from experiments.papers.gps import corrupted, experiment, speed, tables
from experiments.papers.gps.fields import (
    CorruptedConfig,
    CorruptionConfig,
    DrawnConfig,
    PolicyConfig,
    PoolConfig,
    SearchConfig,
    SpeedConfig,
    TransferConfig,
)
from experiments.papers.gps.figures import figures
from experiments.report.charts import Missing
from experiments.shared.ensembling.configs import ImagesConfig, ViewsConfig
from experiments.shared.ensembling.scores import CLL

CONFIG = PolicyConfig(
    weights="random",
    data=ImagesConfig(eval_batch_size=16),
    model=ModelConfig(name="resnet20_cifar10"),
    pool=PoolConfig(counts=(1, 0, 1)),
    search=SearchConfig(length=2, splits=2, grid=(0.0,), grid_views=1),
    views=ViewsConfig(counts=(1, 2)),
)


@pytest.fixture(scope="module")
def dataset():
    images = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    split = Split(images, np.tile(np.arange(10), 3).astype(np.int32))
    return Dataset(
        name="cifar10", source="test", location="nowhere", num_classes=10,
        class_names=tuple("abcdefghij"), train=split, test=split, fingerprint="f", complete=True,
    )  # fmt: skip


def run(config, dataset, directory):
    directory.mkdir(exist_ok=True)
    module = corrupted if isinstance(config, CorruptedConfig) else experiment
    return module.run(
        config, dataset=dataset, directory=directory, seed=0, progress=SilentProgress(), title="t"
    )


@pytest.mark.parametrize(("classes", "size", "count"), [(10, 30, 15), (3, 31, 10), (4, 7, 7)])
def test_subsets_have_the_share_of_every_class(classes, size, count):
    labels = np.arange(size) % classes
    chosen = stratified_subset(labels, count, seed=3)
    assert chosen.sum() == count
    share = count / size
    for c in range(classes):
        of_class = labels == c
        assert abs(chosen[of_class].sum() - share * of_class.sum()) <= 1
    assert (stratified_subset(labels, count, seed=3) == chosen).all()
    if count < size:
        assert any((stratified_subset(labels, count, seed=s) != chosen).any() for s in range(9))


@pytest.fixture(scope="module")
def searched(dataset, tmp_path_factory):
    """Configuration, folder and outcome of one run, with a given policy and another network."""
    folder = tmp_path_factory.mktemp("searched")
    path = folder / "found-policy.json"
    save_policy(path, Policy("cifar", (SubPolicy(),)))
    transfer = TransferConfig(policies=(str(path),), weights="random", name="resnet20_cifar10")
    config = dataclasses.replace(CONFIG, transfer=transfer)
    return config, folder, run(config, dataset, folder / "run")


def test_search_and_evaluation_use_different_images_and_resume(searched, dataset):
    config, folder, found = searched
    arrays = found.arrays
    assert arrays[f"greedy/{CLL}"].shape == (2, 2)
    assert arrays["plain/error"].shape == (2, 1)
    assert found.metrics["pool"].value == 3
    assert found.metrics["greedy.error.2"].count == 15
    policies = [load_policy(folder / "run" / f"policy{i}.json") for i in range(2)]
    assert all(len(policy) == 2 for policy in policies)
    pool = (folder / "run" / "pool.npy").stat().st_mtime_ns
    again = run(config, dataset, folder / "run")
    assert (folder / "run" / "pool.npy").stat().st_mtime_ns == pool
    assert again.metrics == found.metrics
    # The authors' variant is there exactly if a policy has the images as they are.
    unchanged = any(not s.crop for policy in policies for s in policy.sub_policies)
    assert ("greedy_released/error" in arrays) == unchanged


def test_held_out_training_images_leave_the_whole_test_set(dataset, tmp_path):
    search = dataclasses.replace(CONFIG.search, images="held-out", held_out=20)
    found = run(dataclasses.replace(CONFIG, search=search), dataset, tmp_path / "run")
    assert found.metrics["greedy.error.1"].count == 30
    assert found.arrays["greedy/error"].shape == (1, 2)


def test_given_policies_and_another_network_are_evaluated(searched):
    _, _, found = searched
    # A policy of crops alone is the policy of crops and flips, drawn with the same seed.
    np.testing.assert_allclose(found.arrays["given0/error"], found.arrays["crops/error"])
    assert "other_greedy/error" in found.arrays
    assert found.metrics["given0.error.1"].note.startswith("found-policy.json")


def test_tables_and_figures_show_every_policy_of_a_run(searched, tmp_path):
    _, _, outcome = searched
    record = write_run(tmp_path, "gps.cifar10.resnet20", outcome, {})
    text = tables.policies_table([record])
    for title in ("none (CC)", "crop and flip (CF)", "one magnitude (M*)", "given: found"):
        assert f"| {title} |" in text
    values = outcome.arrays[f"crops/{CLL}"][:, 1]
    assert f"{values.mean():.4f} ± {values.std(ddof=1):.4f}" in text
    gain = (outcome.arrays[f"greedy/{CLL}"] - outcome.arrays[f"crops/{CLL}"])[:, 1]
    assert f"{gain.mean():+.4f} ± {gain.std(ddof=1):.4f}" in tables.gains_table([record])
    error = float(outcome.arrays["greedy/error"][:, -1].mean())
    assert f"{error:.2f} % error" in tables.saving([record])
    (figure,) = figures([record])
    assert len(figure.svg) == 3
    assert len(figure.data["rows"]) == sum(
        array.size for name, array in outcome.arrays.items()
        if name.endswith("/counts") and not name.startswith("greedy_released")
    )  # fmt: skip
    assert tables.policies_table([]).startswith("Not run")
    assert isinstance(figures([])[0], Missing)


def test_the_time_of_the_search_is_of_every_selection(dataset, tmp_path):
    config = SpeedConfig(DrawnConfig(candidates=4, objects=30, length=3))
    outcome = speed.run(
        config, dataset=dataset, directory=tmp_path, seed=0, progress=SilentProgress(), title="t"
    )
    assert outcome.arrays["step_seconds"].shape == (3,)
    total = outcome.metrics["search_seconds"].value
    assert total == pytest.approx(outcome.arrays["step_seconds"].sum())
    record = write_run(tmp_path, "gps.search.time", outcome, {})
    assert "4 candidates, 30 objects" in tables.time_table([record])


def test_corruptions_compare_policies_on_the_same_images(dataset, tmp_path):
    config = CorruptedConfig(
        weights="random", policy="random", data=ImagesConfig(eval_batch_size=16),
        corruption=CorruptionConfig(kinds=("contrast", "pixelate"), severities=(1, 5)),
        views=ViewsConfig(counts=(1,)),
    )  # fmt: skip
    found = run(config, dataset, tmp_path / "run")
    assert found.arrays["crops/error.1"].shape == (2, 2)
    mean = float(found.arrays["greedy/error.1"].mean())
    assert found.metrics["greedy.muce.1"].value == pytest.approx(mean)
    record = write_run(tmp_path, "gps.corruptions.resnet20", found, {})
    assert f"| {mean:.2f} |" in tables.corruptions_table([record])


def test_mistakes_answer_in_one_line(dataset, tmp_path):
    with pytest.raises(UserError, match=r"--weights is ''; expected the folder of a finished run"):
        run(dataclasses.replace(CONFIG, weights=""), dataset, tmp_path / "a")
    fewer = dataclasses.replace(dataset, num_classes=7)
    weights = run_of_ten_classes(tmp_path)
    with pytest.raises(UserError, match=r"a network of 10 classes; expected 7"):
        run(dataclasses.replace(CONFIG, weights=str(weights)), fewer, tmp_path / "b")
    with pytest.raises(UserError, match=r"--pool.counts is \(1,\); expected 3 numbers"):
        PoolConfig(counts=(1,))
    with pytest.raises(UserError, match=r"--corruption.kinds is \('rain',\); expected distinct"):
        CorruptionConfig(kinds=("rain",))
    with pytest.raises(UserError, match=r"--views.counts is \(2, 1\); expected increasing"):
        ViewsConfig(counts=(2, 1))


def run_of_ten_classes(folder):
    """Writes an untrained ResNet-20 of ten classes."""
    import jax
    import jax.numpy as jnp

    from adaptive_nets.models import create_model, model_entry
    from adaptive_nets.models.weights.stored import save_network

    entry = model_entry("resnet20_cifar10")
    model = create_model("resnet20_cifar10")
    variables = model.init(jax.random.key(0), jnp.zeros((1, *entry.input_shape)), train=False)
    path = folder / "network.safetensors"
    save_network(
        path, model="resnet20_cifar10", num_classes=10, variables=jax.device_get(variables),
        normalisation=entry.normalisation.to_input_normalisation(),
        note={"data": "cifar10", "overrides": {}},
    )  # fmt: skip
    return path
