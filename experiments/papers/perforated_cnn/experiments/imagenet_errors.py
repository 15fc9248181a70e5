"""Top-1 and top-5 errors of a trained network on streamed validation images of ImageNet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.data.streams import StreamOptions, stream
from adaptive_nets.models import logits_of
from adaptive_nets.models.weights import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.perforated_cnn.configs.fields import RuledConfig
from experiments.suite.experiment import Metric

Batch = Mapping[str, np.ndarray]


def validation_batches(
    dataset: Dataset, config: RuledConfig, image_shape: tuple[int, int, int]
) -> tuple[Iterator[Batch], int]:
    """Returns batches of the whole validation set at the network's size, and their number.

    Raises:
        UserError: The data set is not streamed.
    """
    if "test" not in dataset.streams:
        raise UserError(
            f"--data.name is {dataset.name!r}, whose images have a fixed size; expected a prepared "
            "'imagenet' (adaptive-nets data build imagenet PATH makes one)"
        )
    split = dataclasses.replace(dataset.streams["test"], image_shape=image_shape)
    size = config.data.eval_batch_size
    count = math.ceil(split.size / size)
    options = StreamOptions(
        config.run.input_workers, config.run.input_threads, config.run.input_prefetch
    )
    batches = stream(
        split, rows=np.arange(size), batch_size=size, first=0, batches=count, options=options
    )
    return batches, count


def errors(
    networks: Mapping[str, Any],
    variables: Any,
    batches: Iterable[Batch],
    normalisation: InputNormalisation,
    *,
    progress: ProgressReporter,
    title: str,
    total: int,
) -> dict[str, dict[str, float]]:
    """Computes the errors of several networks with the same weights in one pass.

    Args:
        networks: Name -> object with ``apply(variables, images, train=False)``.
        variables: Variables of all networks.
        batches: {"image": uint8[N, H, W, C], "label": int[N], "weight": float[N], 0 for padding}.
        normalisation: Normalisation of the inputs.
        progress: Reporter of the progress.
        title: Title of the progress.
        total: Number of batches.

    Returns:
        Name -> {"error", "top5_error": fractions, "count": images}.
    """

    def make_error_counter(network):
        @jax.jit
        def wrong(variables, pixels, labels, weight):
            x = pixels.astype(jnp.float32) / normalisation.pixel_scale
            x = (x - normalisation.offset[None]) * normalisation.scale[None]
            logits = logits_of(network.apply(variables, x, train=False)).astype(jnp.float32)
            own = jnp.take_along_axis(logits, labels[:, None], axis=1)
            # Among equal logits the label ranks last, so that ties never count as correct.
            above = jnp.sum(logits >= own, axis=1) - 1
            return jnp.stack([jnp.sum(weight * (above >= k)) for k in (1, 5)])

        return wrong

    compiled = {name: make_error_counter(network) for name, network in networks.items()}
    sums, count = {name: np.zeros(2) for name in networks}, 0.0
    progress.start(title, done=0, total=total, unit="batches")
    for done, batch in enumerate(batches, start=1):
        weight = np.asarray(batch.get("weight", np.ones(len(batch["label"]))), np.float32)
        count += float(weight.sum())
        for name, wrong in compiled.items():
            sums[name] += np.asarray(wrong(variables, batch["image"], batch["label"], weight))
        progress.update(done)
    progress.finish()
    return {
        name: {"error": s[0] / count, "top5_error": s[1] / count, "count": count}
        for name, s in sums.items()
    }


def error_metrics(found: Mapping[str, Mapping[str, float]]) -> dict[str, Metric]:
    """Returns the errors of the whole network and their increase by perforation."""
    whole, perforated = found["whole"], found["perforated"]
    count = int(whole["count"])
    return {
        name: Metric(100 * value, "%", count)
        for name, value in (
            ("error", whole["error"]),
            ("top5_error", whole["top5_error"]),
            ("perforated_top5_error", perforated["top5_error"]),
            ("top5_increase", perforated["top5_error"] - whole["top5_error"]),
        )
    }
