"""Predictions of members, with and without augmentation, and the scores of their averages."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from adaptive_nets.ensembling import RunningAverage, calibrated_log_likelihood
from adaptive_nets.ensembling.posterior import member_predictors
from adaptive_nets.ensembling.test_time import predict_view
from adaptive_nets.ensembling.views import Views
from adaptive_nets.models.weights.stored import load_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from experiments.papers.tta.methods.bench import Bench
from experiments.shared.ensembling.scores import Scores, score

PLAIN, AUGMENTED = "plain", "tta"


def predict_members(bench: Bench, files: list[Path], name: str, views: Views) -> list[np.ndarray]:
    """Predicts the test images with every member, each with a view of its own.

    A single network predicts every view, or once without augmentation.

    Returns:
        float32[N, K] of each sample, log-probabilities.
    """
    config = bench.config
    count = config.views.counts[-1]
    single = len(files) == 1
    samples = 1 if single and name == PLAIN else count
    images = bench.test.images
    size = config.data.eval_batch_size
    # Random parts depend on the size of a batch.
    folder = bench.directory / "predictions" / f"{name}-{size}"
    per_sample = -(-len(images) // min(size, len(images)))
    paths = [folder / f"{number}.npy" for number in range(samples)]
    predictors = member_predictors(bench.network, bench.normalisation)
    shown = f"{bench.title}: predictions, {'augmented' if name == AUGMENTED else 'images'}"
    done = itertools.count(1)
    bench.progress.start(shown, done=0, total=samples * per_sample, unit="batches")
    found = []
    for number, path in enumerate(paths):
        array = _read_array(path, (len(images), bench.num_classes))
        if array is None:
            variables = load_network(files[0 if single else number]).variables
            array = predict_view(
                predictors(variables), images, views, number, seed=bench.seed, batch_size=size,
                after_batch=lambda: bench.progress.update(next(done)),
            )  # fmt: skip
            content = io.BytesIO()
            np.save(content, array)
            folder.mkdir(parents=True, exist_ok=True)
            write_bytes_atomically(path, content.getvalue())
        found.append(array)
    bench.progress.finish()
    return found


def _read_array(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged: {error}; remove it to predict again") from error
    if array.shape != shape:
        raise UserError(f"{path} has shape {array.shape}; expected {shape}; remove it")
    return array


def _averages(predictions: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields the log of the mean probability of the first 1, 2, ... samples."""
    average = None
    for log_probs in predictions:
        average = (average or RunningAverage.empty(*log_probs.shape)).add(log_probs)
        yield average.log_mean()


def score_curve(predictions: list[np.ndarray], bench: Bench) -> dict[int, Scores]:
    """Scores the averages of the configured numbers of samples.

    Without further samples the curve is constant.
    """
    config = bench.config
    labels, found = bench.test.labels, {}
    for number, log_probs in enumerate(_averages(iter(predictions)), start=1):
        if number in config.views.counts:
            found[number] = score(log_probs, labels, config.calibration, seed=bench.seed)
    last = len(predictions)
    if last not in found:
        average = list(_averages(iter(predictions)))[-1]
        found[last] = score(average, labels, config.calibration, seed=bench.seed)
    return {count: found.get(count, found[last]) for count in config.views.counts}


def reference_curve(
    predictions: list[np.ndarray], bench: Bench, groupings: int, prefix: str
) -> dict[str, np.ndarray]:
    """Computes calibrated log-likelihoods of deep ensembles of 1, 2, ... members.

    They are means and standard deviations over random orders of the members.
    """
    generator = np.random.default_rng(bench.seed)
    calibration = bench.config.calibration
    curves = []
    for _ in range(groupings):
        order = generator.permutation(len(predictions))
        curves.append(
            [
                calibrated_log_likelihood(
                    average, bench.test.labels, folds=calibration.folds,
                    repeats=calibration.repeats, seed=bench.seed,
                )
                for average in _averages(predictions[i] for i in order)
            ]
        )  # fmt: skip
    return {
        f"{prefix}reference/counts": np.arange(1, len(predictions) + 1),
        f"{prefix}reference/mean": np.mean(curves, axis=0),
        f"{prefix}reference/std": np.std(curves, axis=0),
    }
