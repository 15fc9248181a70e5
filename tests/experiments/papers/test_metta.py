"""Mean embeddings: a smoke run, views, interpolation, photographs, figures, tables, bad input."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from records_for_tests import write_run
from scipy.special import log_softmax

from adaptive_nets.data import Dataset, Split
from adaptive_nets.ensembling.linear_probe import LinearHead
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import SilentProgress
from experiments.papers.metta import experiment as probed
from experiments.papers.metta import measures, photographs
from experiments.papers.metta.fields import (
    CropsConfig,
    EmbeddingConfig,
    HeadConfig,
    NeighboursConfig,
    PhotographsConfig,
    PhotographViewsConfig,
    ProbedConfig,
)
from experiments.papers.metta.figures import PICTURES, figures
from experiments.papers.metta.tables import PARTS
from experiments.papers.metta.views import random_views
from experiments.report.charts import Figure, Missing
from experiments.shared.ensembling.configs import CalibrationConfig, ImagesConfig
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.registry import find_experiment

PROBED = "metta.cifar100.resnet32"
SIMCLR = "metta.imagenet.simclr-resnet50-1x"


def small_set(*, channels: int = 3, side: int = 32, classes: int = 5) -> Dataset:
    rng = np.random.default_rng(0)

    def split(count: int) -> Split:
        images = rng.integers(0, 256, (count, side, side, channels)).astype(np.uint8)
        return Split(images, rng.integers(0, classes, count).astype(np.int32))

    return Dataset(
        name="cifar100", source="files", location="memory", num_classes=classes,
        class_names=tuple(map(str, range(classes))), train=split(24), test=split(10),
        fingerprint="0" * 64, complete=False,
    )  # fmt: skip


def run_probed(directory, dataset=None, **groups: Any) -> Outcome:
    config = find_experiment(PROBED).presets["smoke"].config
    return probed.run(
        dataclasses.replace(config, **groups), dataset=dataset or small_set(),
        directory=directory, seed=0, progress=SilentProgress(), title="probed",
    )  # fmt: skip


def number(outcome: Outcome, name: str) -> float:
    value = outcome.metrics[name].value
    assert value is not None
    return value


@pytest.mark.slow
def test_smoke_run_has_every_measure_and_resumes_to_the_same(tmp_path):
    first = run_probed(tmp_path)
    names = set(first.metrics)
    for combination in ("plain.plain", "plain.mean", "mean.plain", "mean.mean"):
        assert {f"knn_accuracy.{combination}", f"mean_average_precision.{combination}"} <= names
    for prefix in ("", "augmented_", "matched_"):
        for view in ("plain", "1", "2"):
            assert {f"{prefix}accuracy.{view}", f"{prefix}calibrated_nll.{view}"} <= names
    assert {"gain", "gain_error", "matched_gain", "matched_total_gain", "knn_gain"} <= names
    # The identity of linear heads: mean of logits, logits of the mean.
    assert number(first, "logit_difference") < 1e-5
    assert 0 < number(first, "length_share") <= 1
    # The interpolation begins at the mean embedding and ends at the plain one.
    curve = first.arrays["interpolation/accuracy"]
    assert curve[0] == pytest.approx(first.metrics["accuracy.2"].value)
    assert curve[-1] == pytest.approx(first.metrics["accuracy.plain"].value)
    single = first.arrays["interpolation/single_accuracy"]
    assert single[-1] == pytest.approx(curve[-1])
    curve = first.arrays["interpolation/augmented_accuracy"]
    assert curve[0] == pytest.approx(first.metrics["augmented_accuracy.2"].value)
    assert first.arrays["accuracy"].shape == first.arrays["counts"].shape == (2,)
    again = run_probed(tmp_path)
    for name, array in first.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    with pytest.raises(UserError, match="another layer"):
        run_probed(tmp_path, embedding=EmbeddingConfig(views=2, layer="layer3_0"))


@pytest.mark.slow
def test_without_mean_training_embeddings_the_rest_is_measured(tmp_path):
    embedding = EmbeddingConfig(views=2, layer="layer3_2/conv2", train=False)
    found = run_probed(tmp_path, embedding=embedding).metrics
    assert "knn_accuracy.mean.plain" in found
    assert not [
        name for name in found if name.startswith(("matched_", "augm")) or name.endswith(".mean")
    ]


CASES: dict[str, tuple[dict[str, Any], str]] = {
    "no weights": ({"weights": ""}, "--weights is ''; expected the folder of a finished run"),
    "no file": ({"weights": "gone.th"}, "--weights is 'gone.th', which does not exist"),
    "unknown layer": (
        {"embedding": EmbeddingConfig(layer="layer3_2/cnv2", views=2)},
        "--embedding.layer is 'layer3_2/cnv2'; expected .* did you mean 'layer3_2/conv2'",
    ),
    "one channel": ({"dataset": small_set(channels=1)}, "a network of images with 3 channels"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    groups, message = CASES[case]
    with pytest.raises(UserError, match=message) as caught:
        run_probed(tmp_path, **groups)
    assert "\n" not in str(caught.value)


def test_bad_flags_are_one_line():
    for make, message in (
        (lambda: CropsConfig(counts=(0, 1)), "--views.counts is"),
        (lambda: CropsConfig(counts=(2, 1)), "--views.counts is"),
        (lambda: CropsConfig(smallest_area=0.0), "--views.smallest-area is 0.0"),
        (lambda: PhotographViewsConfig(counts=(2, 2)), "--views.counts is"),
        (lambda: NeighboursConfig(count=0), "--neighbours.count is 0"),
        (
            lambda: ProbedConfig(embedding=EmbeddingConfig(views=3)),
            "--embedding.views is 3; expected one of --views.counts, 1, 2, 5, 10, 32",
        ),
    ):
        with pytest.raises(UserError) as caught:
            make()
        assert message in str(caught.value)


def test_views_differ_between_images_and_stay_pixels(key):
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)), jnp.float32)
    images = jnp.repeat(images, 8, axis=0)
    for config in (CropsConfig(padding=4), CropsConfig(smallest_area=0.3)):
        found = np.asarray(random_views(config)(key, images, 0))
        assert found.shape == images.shape
        assert found.min() >= 0
        assert found.max() <= 255
        assert len({view.tobytes() for view in found}) > 5
    # Crops of nearly the whole image are nearly the image, or its mirror image.
    whole = np.asarray(random_views(CropsConfig(smallest_area=0.995))(key, images, 0))
    near = [min(np.abs(v - images[0]).mean(), np.abs(v - images[0, :, ::-1]).mean()) for v in whole]
    assert np.mean(near) < np.abs(np.asarray(images[0]) - 127).mean()


def test_interpolation_and_averages_equal_loops_over_views(rng):
    head = LinearHead(rng.normal(size=(3, 4)), rng.normal(size=4))
    views, plain, labels = rng.normal(size=(5, 20, 3)), rng.normal(size=(20, 3)), np.arange(20) % 4
    shares = np.array([0.0, 0.3, 1.0])
    averaged, curves, difference = measures.single_views(
        [head.logits(view) for view in views], head.logits(plain), head.logits(views.mean(0)),
        labels, shares=shares,
    )  # fmt: skip
    assert difference < 1e-12
    probs = np.mean([np.exp(head.log_probs(view)) for view in views], axis=0)
    np.testing.assert_allclose(np.exp(averaged), probs, rtol=1e-10)
    for i, share in enumerate(shares):

        def score(embeddings, share=share):
            log_probs = log_softmax(head.logits((1 - share) * embeddings + share * plain), axis=1)
            nll = -log_probs[np.arange(20), labels].mean()
            return 100 * np.mean(log_probs.argmax(1) == labels), nll

        of_mean, singles = score(views.mean(0)), np.mean([score(view) for view in views], axis=0)
        found = [curves["accuracy"][i], curves["nll"][i]]
        np.testing.assert_allclose(found, of_mean, rtol=1e-10)
        found = [curves["single_accuracy"][i], curves["single_nll"][i]]
        np.testing.assert_allclose(found, singles, rtol=1e-10)


def test_gain_has_the_error_of_paired_images():
    first, second = np.array([True, True, False, True]), np.array([True, False, False, False])
    found = measures.gain(first, second, "gain.10", note="")
    assert found["gain.10"].value == 50
    expected = 100 * np.std([0, 1, 0, 1], ddof=1) / 2
    assert found["gain_error.10"].value == pytest.approx(expected)


class TinyReader:
    """Views that are constant images, to follow what the runner averages."""

    size = 5

    def read(self, number, generator):
        value = 0.0 if generator is None else generator.integers(0, 256)
        return {"image": np.full((2, 2, 3), value, np.uint8), "label": np.int32(number % 2)}


def test_photographs_are_averaged_view_by_view():
    head = LinearHead(np.array([[0.01, -0.02]]), np.array([0.3, 0.0]))
    pool = photographs.ThreadPoolExecutor(2)
    batch = photographs._Batch(TinyReader(), pool, range(1, 4), seed=7)

    def feature_fn(images):
        return images.mean((1, 2, 3))[:, None]

    found = {
        name: values
        for name, values in photographs._predictions(batch, feature_fn, head, (1, 3))
        if name is not None
    }
    draws = np.array(
        [
            [np.random.default_rng((7, 1 + s, n)).integers(0, 256) for n in range(1, 4)]
            for s in range(3)
        ],
        np.float64,
    )
    np.testing.assert_array_equal(batch.labels, [1, 0, 1])
    expected = {
        "centre": head.log_probs(np.zeros((3, 1))),
        "1": head.log_probs(draws[0][:, None]),
        "3": head.log_probs(draws.mean(0)[:, None]),
        "probabilities": np.log(
            np.mean([np.exp(head.log_probs(view[:, None])) for view in draws], axis=0)
        ),
    }
    assert set(found) == set(expected)
    for name, log_probs in expected.items():
        np.testing.assert_allclose(found[name], log_probs, rtol=1e-5)


@pytest.mark.slow
def test_images_in_memory_take_the_path_of_photographs_and_resume(tmp_path, monkeypatch):
    config = HeadConfig(
        weights="random", data=ImagesConfig(name="cifar100", eval_batch_size=4),
        model=dataclasses.replace(HeadConfig().model, name="resnet20_cifar10"),
        views=PhotographViewsConfig(counts=(1, 3)),
        photographs=PhotographsConfig(pixels="unit", threads=2),
        calibration=CalibrationConfig(repeats=1),
    )  # fmt: skip

    def run(config: HeadConfig, directory=tmp_path) -> Outcome:
        return photographs.run(
            config, dataset=small_set(side=48), directory=directory, seed=0,
            progress=SilentProgress(), title="photographs",
        )  # fmt: skip

    whole = run(config, tmp_path / "whole")
    read, left = photographs._MemoryReader.read, [10**6]

    def interrupted(self, number, generator):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return read(self, number, generator)

    monkeypatch.setattr(photographs._MemoryReader, "read", interrupted)
    left[0] = 5 * 4 * 4 // 3
    with pytest.raises(KeyboardInterrupt):
        run(config)
    assert (tmp_path / "batches" / "0.npz").exists()
    assert not (tmp_path / "batches" / "2.npz").exists()
    left[0] = 10**6
    found = run(config)
    assert left[0] == 10**6 - 2 * 4 * 4, "the finished batch is not read again"
    assert found.metrics == whole.metrics
    with pytest.raises(UserError, match="another counts"):
        run(dataclasses.replace(config, views=PhotographViewsConfig(counts=(1, 2))))
    names = {"top1.centre", "top1.1", "top1.3", "gain.3", "gain_error.3", "probability_top1.3"}
    assert names <= set(found.metrics)
    assert found.metrics["top1.3"].count == 10
    gain = number(found, "top1.3") - number(found, "top1.centre")
    assert found.metrics["gain.3"].value == pytest.approx(gain)


def test_simclr_takes_pixels_from_0_to_1():
    config = find_experiment(SIMCLR).presets["paper"].config
    small = dataclasses.replace(
        config, weights="random", model=dataclasses.replace(config.model, name="resnet20_cifar10")
    )
    network = photographs._network(small, small_set(), 0)
    pixels = network.normalisation.apply(np.array([[[[0, 51, 255]]]], np.uint8))
    np.testing.assert_allclose(pixels.ravel(), [0, 0.2, 1], rtol=1e-6)
    other = find_experiment("metta.imagenet.supervised-resnet50-1x").presets["paper"].config
    changed = dataclasses.replace(small, photographs=other.photographs)
    assert photographs._network(changed, small_set(), 0).normalisation.offset.any()


def made_up(seed: int) -> Outcome:
    """Returns a made-up outcome in which mean embeddings are better by three points."""
    counts = (1, 2, 5, 10, 32)
    metrics = {"logit_difference": Metric(1e-7, "x", 10)}
    arrays: dict[str, np.ndarray] = {"counts": np.array(counts)}
    for name in ("accuracy", "nll", "calibrated_nll"):
        for prefix in ("", "augmented_", "matched_", "knn_", "probability_"):
            values = np.linspace(29, 34, 5) + 0.1 * seed if name == "accuracy" else np.ones(5)
            arrays[prefix + name] = values
            for count, value in zip(("plain", *counts), (30.0, *values), strict=True):
                metrics[f"{prefix}{name}.{count}"] = Metric(float(value), "%", 10)
    for name, value in (("gain", 3.0), ("knn_gain", 0.05)):
        metrics[name] = Metric(value + 0.1 * seed, "%", 10)
        metrics[f"{name}_error"] = Metric(0.2, "%", 10)
    for name in ("plain.plain", "mean.plain", "plain.mean", "mean.mean"):
        for measure in ("knn_accuracy", "recall_at_1", "mean_average_precision"):
            metrics[f"{measure}.{name}"] = Metric(20.0, "%", 10)
    arrays["interpolation/share"] = np.linspace(0, 1, 3)
    for name in ("accuracy", "nll", "calibrated_nll"):
        for prefix in ("", "single_", "augmented_", "augmented_single_"):
            arrays[f"interpolation/{prefix}{name}"] = np.linspace(2, 1, 3)
    return Outcome(metrics, arrays, seconds=1.0, steps=0)


def test_figures_and_tables_show_every_number(tmp_path):
    records = [write_run(tmp_path, PROBED, made_up(seed), {}, seed=seed) for seed in range(3)]
    drawn = figures(records)
    shown = [f for f in drawn if isinstance(f, Figure)]
    assert [f.title for f in shown] == [
        "Accuracy over views", "Interpolation to the plain embedding",
    ]  # fmt: skip
    assert len([f for f in drawn if isinstance(f, Missing)]) == 2
    assert all(figure.section for figure in drawn)
    assert "probe of plain embeddings" in shown[0].svg[0]
    assert len(shown[1].svg) == 4
    assert all(draw(records).startswith("<svg") for draw in PICTURES.values())
    gain = PARTS["gain"](records)
    assert "| probe of plain embeddings | itself on images | 10 | +3.10 | 0.10 | 0.20 | yes" in gain
    assert "| themselves on images | 10 | +0.15 | 0.10 | 0.20 | no |" in gain
    assert "3 seeds" in gain
    assert "| 10 | 32.85 ± 0.10 | 1.0000 ± 0.0000 |" in PARTS["views"](records)
    assert PARTS["neighbours"](records).count("| 20.00 ± 0.00 |") == 8
    assert "1.0e-07" in PARTS["control"](records)


def test_without_records_tables_and_pictures_say_so():
    assert all(part([]) == "Not run: there is no record.\n" for part in PARTS.values())
    assert all(draw([]) == "" for draw in PICTURES.values())
    assert all(isinstance(figure, Missing) for figure in figures([]))


def test_every_file_is_in_the_readme():
    from pathlib import Path

    import experiments.papers.metta as package

    folder = Path(package.__file__).parent
    text = (folder / "README.md").read_text()
    for file in folder.glob("*"):
        if file.suffix in (".py", ".toml") and file.name != "__init__.py":
            assert f"| `{file.name}` |" in text
    for name in (*PARTS, "imagenet"):
        assert f"<!-- begin metta.{name} -->" in text
