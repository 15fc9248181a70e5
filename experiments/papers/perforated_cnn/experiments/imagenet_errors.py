"""Top-1 and top-5 errors of a trained network on ImageNet's validation images, streamed."""

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
    """Batches of the whole validation set at the network's size, and how many there are.

    Raises:
        UserError: the data set is not one that is streamed.
    """
    if "test" not in dataset.streams:
        raise UserError(
            f"--data.name is {dataset.name!r}, whose images are of another size; expected a "
            "prepared 'imagenet'"
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
    """Errors of several networks with the same weights, in one pass over the images.

    Args:
        networks: name -> anything with ``apply(variables, images, train=False)``.
        variables: of all of them.
        batches: {"image": uint8[N, H, W, C], "label": int[N], "weight": 0 for what pads}.
        normalisation: of the inputs.
        progress: where to show how far it is.
        title: what to call it there.
        total: number of batches.

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
            # Of equal logits the label's counts as the last: no luck enters.
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
    """The whole network's errors, and what they rise by when it is perforated."""
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
