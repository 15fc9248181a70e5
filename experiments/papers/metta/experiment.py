"""Runs one seed: mean embeddings of a trained network, probed on another data set."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.ensembling import predict_view, unchanged_views
from adaptive_nets.ensembling.embeddings import average_features
from adaptive_nets.ensembling.features import FeatureFn, make_feature_fn
from adaptive_nets.ensembling.linear_probe import LinearHead, choose_penalty, fit_linear_probe
from adaptive_nets.ensembling.views import Views
from adaptive_nets.models import model_entry
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.metta import measures
from experiments.papers.metta.fields import ProbedConfig
from experiments.papers.metta.measures import MEAN, PLAIN, PREFIXES, SINGLE
from experiments.papers.metta.views import random_views
from experiments.shared.ensembling.network import (
    evaluation_split,
    load_trained,
    training_split,
)
from experiments.suite.experiment import Metric, Outcome

# Options of `fit_linear_probe`: products in float32, up to gradients that float32 resolves.
_FIT: dict[str, Any] = {"dtype": np.float32, "tolerance": 1e-5}
_PROBES = {
    PLAIN: "plain embeddings",
    SINGLE: "embeddings of one view of each image",
    MEAN: "mean embeddings",
}
# Training views differ from test views of the same number and seed.
_TRAINING_SEED = 1_000_003


def run(
    config: ProbedConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures mean embeddings over numbers of views; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    train, test = training_split(dataset), evaluation_split(dataset)
    embedder = _Embedder.of(config, dataset, directory, seed, progress, title)
    views = config.embedding.views
    plain = embedder.plain(test, "test")
    # Name of a probe or database -> embeddings of the training images.
    databases = {PLAIN: embedder.plain(train, "training")}
    means = embedder.means(test, "test", config.views.counts, seed=seed, keep=views)
    if config.embedding.train:
        found = embedder.means(
            train, "training", tuple(sorted({1, views})), seed=seed + _TRAINING_SEED
        )
        databases |= {SINGLE: found[1], MEAN: found[views]}
    embeddings = {PLAIN: plain, **{str(count): found for count, found in means.items()}}

    arrays: dict[str, np.ndarray] = {"counts": np.array(config.views.counts)}
    heads = {}
    for name, features in databases.items():
        progress.show(f"{title}: probe of {_PROBES[name]}")
        heads[name] = _fit(config, features, train.labels, dataset.num_classes, seed)
    metrics, curves = _probes(config, heads, embeddings, test.labels, seed)
    arrays |= curves
    progress.show(f"{title}: {_summary(metrics, config)}; neighbours and retrieval")
    more, curves = _neighbours(config, databases, embeddings, train.labels, test.labels)
    metrics, arrays = metrics | more, arrays | curves
    more, curves = _single_views(config, embedder, heads, test, embeddings, seed)
    return Outcome(metrics | more, arrays | curves, seconds=time.monotonic() - began, steps=0)


@dataclasses.dataclass(frozen=True)
class _Embedder:
    """Embeddings of images, kept in the folder of the seed."""

    feature_fn: FeatureFn
    views: Views
    identity: dict[str, Any]
    batch_size: int
    directory: Path
    progress: ProgressReporter
    title: str
    kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, config: ProbedConfig, dataset: Dataset, directory: Path, seed: int,
        progress: ProgressReporter, title: str,
    ) -> _Embedder:  # fmt: skip
        network = load_trained(
            config.weights, config.model.name, dataset, seed=seed, any_classes=True
        )
        try:
            feature_fn = make_feature_fn(
                network.module, network.variables, network.normalisation,
                image_shape=model_entry(network.name).input_shape, layer=config.embedding.layer,
            )  # fmt: skip
        except UserError as error:
            raise UserError(f"--embedding.{error}") from error
        identity = {
            "network": network.digest,
            "layer": config.embedding.layer,
            "images": dataset.fingerprint,
            "sizes": [dataset.count("train"), dataset.count("test")],
            "padding": config.views.padding,
            "smallest area": config.views.smallest_area,
        }
        views = random_views(config.views)
        size = config.data.eval_batch_size
        return cls(feature_fn, views, identity, size, directory, progress, title)

    def plain(self, split: Split, name: str) -> np.ndarray:
        """Returns embeddings of the images themselves, float32[N, D]."""
        return average_features(
            self.feature_fn, split.images, unchanged_views, counts=(1,),
            batch_size=self.batch_size, store=self.directory / f"plain-{name}.npz",
            identity=self.identity, progress=self.progress, title=f"{self.title}: {name} images",
        )[1]  # fmt: skip

    def means(
        self, split: Split, name: str, counts: tuple[int, ...], *, seed: int,
        keep: int = 0,
    ) -> dict[int, np.ndarray]:  # fmt: skip
        """Returns mean embeddings, number of views -> float32[N, D].

        Args:
            split: images.
            name: name of the split.
            counts: increasing numbers of views.
            seed: seed of the views.
            keep: number of first views that `view` returns without computing them again.
        """

        def after_view(number: int, features: np.ndarray) -> None:
            if number < keep:
                self.kept[number] = features

        return average_features(
            self.feature_fn, split.images, self.views, counts=counts, seed=seed,
            batch_size=self.batch_size, store=self.directory / f"mean-{name}.npz",
            identity=self.identity, progress=self.progress,
            title=f"{self.title}: views of {name} images", after_view=after_view,
        )  # fmt: skip

    def view(self, split: Split, number: int, *, seed: int) -> np.ndarray:
        """Returns embeddings of one of the views whose mean `means` returns, once."""
        # After an interruption the views that the store holds were not kept.
        if number not in self.kept:
            return predict_view(
                self.feature_fn, split.images, self.views, number, seed=seed,
                batch_size=self.batch_size,
            )  # fmt: skip
        return self.kept.pop(number)


def _fit(
    config: ProbedConfig, features: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> tuple[float, LinearHead]:
    """Chooses the penalty on held-out training images, and fits the probe to all of them."""
    probe = config.probe
    penalty, start = choose_penalty(
        features, labels, probe.penalties, num_classes=classes, held_out=probe.held_out,
        seed=seed, max_iterations=probe.iterations, **_FIT,
    )  # fmt: skip
    head = fit_linear_probe(
        features, labels, num_classes=classes, penalty=penalty, start=start,
        max_iterations=probe.iterations, **_FIT,
    )  # fmt: skip
    return penalty, head


def _probes(
    config: ProbedConfig, heads: Mapping[str, tuple[float, LinearHead]],
    embeddings: Mapping[str, np.ndarray], labels: np.ndarray, seed: int,
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:  # fmt: skip
    """Measures every probe on plain and mean embeddings of the test images."""
    views = config.embedding.views
    metrics: dict[str, Metric] = {}
    arrays: dict[str, np.ndarray] = {}
    correct: dict[str, np.ndarray] = {}
    for name, (penalty, head) in heads.items():
        prefix = PREFIXES[name]
        metrics[f"{prefix}penalty"] = Metric(penalty, "penalty")
        qualities = measures.probe_qualities(
            head, embeddings, labels, config.calibration, seed=seed
        )
        for key, quality in qualities.items():
            metrics |= quality.metrics(key, prefix=prefix, note=_described(key))
        for key in ("accuracy", "nll", measures.NLL):
            arrays[prefix + key] = np.array(
                [getattr(qualities[str(count)], key) for count in config.views.counts]
            )
        correct[name], ours = qualities[PLAIN].correct, qualities[str(views)].correct
        metrics |= measures.gain(
            ours, correct[name], f"{prefix}gain",
            note=f"{views} views less the image itself, the same probe",
        )  # fmt: skip
        if name != PLAIN:
            metrics |= measures.gain(
                ours, correct[PLAIN], f"{prefix}total_gain",
                note=f"{views} views less the image itself under the probe of plain embeddings",
            )  # fmt: skip
    return metrics, arrays


def _neighbours(
    config: ProbedConfig, databases: Mapping[str, np.ndarray],
    embeddings: Mapping[str, np.ndarray], labels: np.ndarray, query_labels: np.ndarray,
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:  # fmt: skip
    """Measures neighbours over the number of views, and all four combinations of embeddings."""
    views = str(config.embedding.views)
    correct = {
        name: measures.classify_by_neighbours(
            features, databases[PLAIN], labels, query_labels, config.neighbours
        )
        for name, features in embeddings.items()
    }
    metrics = {
        f"knn_accuracy.{name}": Metric(
            100 * float(hits.mean()), "%", len(hits), f"{_described(name)}, plain database"
        )
        for name, hits in correct.items()
    }
    metrics |= measures.gain(
        correct[views], correct[PLAIN], "knn_gain",
        note=f"{views} views less the image itself, plain database",
    )  # fmt: skip
    metrics |= measures.neighbour_metrics(
        {PLAIN: embeddings[PLAIN], MEAN: embeddings[views]},
        {name: database for name, database in databases.items() if name != SINGLE},
        labels, query_labels, config.neighbours,
    )  # fmt: skip
    curve = np.array([100 * correct[str(count)].mean() for count in config.views.counts])
    return metrics, {"knn_accuracy": curve}


def _single_views(
    config: ProbedConfig, embedder: _Embedder, heads: Mapping[str, tuple[float, LinearHead]],
    test: Split, embeddings: Mapping[str, np.ndarray], seed: int,
) -> tuple[dict[str, Metric], dict[str, np.ndarray]]:  # fmt: skip
    """Measures what needs the embedding of every single view, for all probes but that of means."""
    views, progress = config.embedding.views, embedder.progress
    plain, mean = embeddings[PLAIN], embeddings[str(views)]
    features = [embedder.view(test, number, seed=seed) for number in range(views)]
    of_views = float(np.mean([np.linalg.norm(view, axis=1).mean() for view in features]))
    length = float(np.linalg.norm(mean, axis=1).mean()) / max(of_views, 1e-30)
    metrics = {
        "length_share": Metric(
            length, "x", len(test), "length of the mean embedding over that of single views"
        )
    }
    shares = np.linspace(0, 1, config.interpolation.points)
    arrays = {"interpolation/share": shares}
    for name in (PLAIN, SINGLE):
        if name not in heads:
            continue
        prefix, head = PREFIXES[name], heads[name][1]
        progress.start(
            f"{embedder.title}: single views, probe of {_PROBES[name]}",
            done=0, total=views, unit="views",
        )  # fmt: skip
        averaged, curves, difference = measures.single_views(
            [head.logits(view) for view in features], head.logits(plain), head.logits(mean),
            test.labels, shares=shares, tick=progress.update,
        )  # fmt: skip
        progress.finish()
        quality = measures.quality(averaged, test.labels, config.calibration, seed=seed)
        metrics |= quality.metrics(
            str(views), prefix=f"{prefix}probability_",
            note="mean of the probe's probabilities over the views",
        )  # fmt: skip
        metrics[f"{prefix}logit_difference"] = Metric(
            difference, "x", len(test),
            "mean of the views' logits against the logits of the mean embedding, largest "
            "difference over the largest logit",
        )  # fmt: skip
        arrays |= {f"interpolation/{prefix}{key}": found for key, found in curves.items()}
    return metrics, arrays


def _described(name: str) -> str:
    return "images themselves" if name == PLAIN else f"{name} views"


def _summary(metrics: dict[str, Metric], config: ProbedConfig) -> str:
    before, after = (metrics[f"accuracy.{name}"].value for name in (PLAIN, config.embedding.views))
    return f"linear probe {before:.2f} % on images, {after:.2f} % on {config.embedding.views} views"
