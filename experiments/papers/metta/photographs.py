"""Runs one seed: mean embeddings of photographs under the linear head that a network comes with.

Views are crops of the original photograph, so it is decoded again for each.
"""

from __future__ import annotations

import dataclasses
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.image_transforms import decode_for_evaluation, decode_for_training
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.data.streams import PhotographReader
from adaptive_nets.ensembling.features import FeatureFn, linear_head, make_feature_fn
from adaptive_nets.ensembling.linear_probe import LinearHead
from adaptive_nets.ensembling.stores import read_arrays, write_arrays
from adaptive_nets.models import model_entry
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.metta.fields import HeadConfig
from experiments.papers.metta.measures import NLL, gain, quality
from experiments.shared.ensembling.network import TrainedNetwork, load_trained
from experiments.suite.experiment import Metric, Outcome

CENTRE = "centre"
_LABELS = "labels"
# Numbers of the random generators of views; 0 is not used.
_FIRST_VIEW = 1


def run(
    config: HeadConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures mean embeddings over numbers of views; see `experiments.suite.experiment.Runner`.

    Log-probabilities of all photographs stay in memory; those of a finished batch are kept in
    the folder of the seed, and an interrupted run goes on from there.
    """
    began = time.monotonic()
    network = _network(config, dataset, seed)
    shape = model_entry(network.name).input_shape
    feature_fn = make_feature_fn(
        network.module, network.variables, network.normalisation, image_shape=shape
    )
    head = linear_head(network.module, network.variables, image_shape=shape)
    reader = _reader(config, dataset, shape[0])
    counts, size = config.views.counts, min(config.data.eval_batch_size, reader.size)
    batches, steps_each = -(-reader.size // size), 1 + counts[-1]
    identity = {
        "network": network.digest, "images": dataset.fingerprint, "photographs": reader.size,
        "counts": list(counts), "batch size": size, "seed": seed,
        "smallest area": config.photographs.smallest_area, "pixels": config.photographs.pixels,
    }  # fmt: skip
    found: dict[str, list[np.ndarray]] = {}
    with ThreadPoolExecutor(config.photographs.threads) as pool:
        paths = [directory / "batches" / f"{number}.npz" for number in range(batches)]
        steps = steps_each * sum(path.exists() for path in paths)
        progress.start(title, done=steps, total=batches * steps_each, unit="batches")
        for number, path in enumerate(paths):
            arrays = read_arrays(path, identity)
            if arrays is None:
                # The last batch is filled with photographs that are predicted twice.
                start = min(number * size, reader.size - size)
                batch = _Batch(reader, pool, range(start, start + size), seed)
                arrays = {}
                for name, log_probs in _predictions(batch, feature_fn, head, counts):
                    if name is None:
                        steps += 1
                        progress.update(steps)
                    else:
                        arrays[name] = log_probs[number * size - start :]
                arrays[_LABELS] = batch.labels[number * size - start :]
                write_arrays(path, arrays, identity)
            for name, values in arrays.items():
                found.setdefault(name, []).append(values)
    progress.finish()
    whole = {name: np.concatenate(parts) for name, parts in found.items()}
    labels = whole.pop(_LABELS)
    return _outcome(config, whole, labels, seed, time.monotonic() - began)


def _network(config: HeadConfig, dataset: Dataset, seed: int) -> TrainedNetwork:
    network = load_trained(config.weights, config.model.name, dataset, seed=seed)
    if config.photographs.pixels == "network":
        return network
    channels = (1, 1, model_entry(network.name).input_shape[2])
    unit = InputNormalisation(255.0, np.zeros(channels, np.float32), np.ones(channels, np.float32))
    return dataclasses.replace(network, normalisation=unit)


class _MemoryReader:
    """Reads images in memory like photographs: random or central crops, resized."""

    def __init__(self, split: Split, side: int, smallest_area: float):
        self._split, self._side, self._area = split, side, (smallest_area, 1.0)

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self._split)

    def read(self, number: int, generator: np.random.Generator | None) -> dict[str, Any]:
        """Returns image and label; a random crop with a generator, else the central one."""
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self._split.images[number]).save(content, "PNG")
        label = self._split.labels[number]
        if generator is None:
            image = decode_for_evaluation(content.getvalue(), size=self._side)
        else:
            image = decode_for_training(
                content.getvalue(), size=self._side, flip=True, generator=generator,
                area=self._area,
            )  # fmt: skip
        return {"image": image, "label": label}


def _reader(config: HeadConfig, dataset: Dataset, side: int) -> PhotographReader | _MemoryReader:
    area = config.photographs.smallest_area
    if dataset.streams:
        return PhotographReader(dataset.streams["test"], flip=True, crop_area=(area, 1.0))
    assert dataset.test is not None
    return _MemoryReader(dataset.test, side, area)


class _Batch:
    """Photographs of one batch, and their views."""

    def __init__(self, reader: Any, pool: ThreadPoolExecutor, numbers: range, seed: int):
        self._reader, self._pool, self._numbers, self._seed = reader, pool, numbers, seed
        self.labels = np.zeros(len(numbers), np.int32)

    def view(self, number: int | None) -> np.ndarray:
        """Returns a view of every photograph, float32[N, H, W, 3]; None for the central crop."""

        def read(photograph: int) -> dict[str, Any]:
            generator = None
            if number is not None:
                key = (self._seed, _FIRST_VIEW + number, photograph)
                generator = np.random.default_rng(key)
            return self._reader.read(photograph, generator)

        examples = list(self._pool.map(read, self._numbers))
        self.labels = np.array([example["label"] for example in examples], np.int32)
        return np.stack([example["image"] for example in examples]).astype(np.float32)


def _predictions(
    batch: _Batch, feature_fn: FeatureFn, head: LinearHead, counts: tuple[int, ...]
) -> Iterator[tuple[str | None, np.ndarray]]:
    """Yields log-probabilities, float32[N, K], by name, and (None, features) after every view.

    Names are "centre", a number of views, and "probabilities" for the mean of the probabilities
    over all views.
    """
    features = np.asarray(feature_fn(jnp.asarray(batch.view(None))))
    yield CENTRE, head.log_probs(features).astype(np.float32)
    yield None, features
    total, probs = np.zeros(features.shape), 0.0
    for number in range(counts[-1]):
        features = np.asarray(feature_fn(jnp.asarray(batch.view(number))))
        total += features
        probs = probs + np.exp(head.log_probs(features))
        if number + 1 in counts:
            yield str(number + 1), head.log_probs(total / (number + 1)).astype(np.float32)
        yield None, features
    yield "probabilities", np.log(np.maximum(probs / counts[-1], 1e-300)).astype(np.float32)


def _outcome(
    config: HeadConfig, log_probs: dict[str, np.ndarray], labels: np.ndarray, seed: int,
    seconds: float,
) -> Outcome:  # fmt: skip
    counts = config.views.counts
    qualities = {
        name: quality(values, labels, config.calibration, seed=seed)
        for name, values in log_probs.items()
    }
    metrics: dict[str, Metric] = {}
    for name, found in qualities.items():
        prefix, suffix, note = "", name, f"{name} views"
        if name == CENTRE:
            note = "central crop"
        elif name == "probabilities":
            prefix, suffix = "probability_", str(counts[-1])
            note = "mean of the probabilities over the views"
        values = found.metrics(suffix, prefix=prefix, note=note)
        # The paper's name of the accuracy.
        metrics |= {name.replace("accuracy", "top1"): metric for name, metric in values.items()}
    for count in counts:
        metrics |= gain(
            qualities[str(count)].correct, qualities[CENTRE].correct, f"gain.{count}",
            note=f"{count} views less the central crop",
        )  # fmt: skip
    curves = {
        name: np.array([getattr(qualities[str(count)], attribute) for count in counts])
        for name, attribute in (("top1", "accuracy"), ("nll", "nll"), (NLL, NLL))
    }
    return Outcome(metrics, {"counts": np.array(counts), **curves}, seconds=seconds, steps=0)
