"""Measures of a network of adaptive depth: error, cost per image and halting statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from adaptive_nets.data.device import take_eval_batch
from adaptive_nets.models import ModelOutput, full_output, ponder_map
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.adaptive.network import Execution
from adaptive_nets.training.losses import cross_entropy, is_error
from experiments.shared.adaptive_depth.images import TestImages, batches_of, image_size
from experiments.suite.experiment import Metric

PICTURED_IMAGES = 12
HISTOGRAM_EDGES = np.linspace(0.0, 1.0, 21)
# A unit that a smaller share of decisions reaches is counted as dead.
DEAD_BELOW = 0.01

Flops = Callable[[ModelOutput], np.ndarray]
"""Output of a batch -> int64[N], FLOPs of each image."""


@dataclasses.dataclass(frozen=True)
class BlockUsage:
    """Halting statistics of one block of L units.

    Attributes:
        cost: float[N], mean ponder cost over the decisions of each image.
        units: float[N], mean number of units over the decisions of each image.
        reached: float[L], share of decisions for which each unit ran.
        weight: float[L], mean weight of each unit's state in the output.
        histogram: int[L − 1, B], counts of the halting probabilities of each unit that ran, by bin.
    """

    cost: Float[np.ndarray, "N"]
    units: Float[np.ndarray, "N"]
    reached: Float[np.ndarray, "L"]
    weight: Float[np.ndarray, "L"]
    histogram: Int[np.ndarray, "L1 B"]


@dataclasses.dataclass(frozen=True)
class DepthUsage:
    """Error, cost and halting statistics over a split.

    Attributes:
        error: float[N], 1 if the class is wrong, else 0.
        nll: float[N], cross-entropy in nats.
        flops: int64[N], FLOPs of each image, 2 per multiply-accumulate.
        blocks: statistics of each block, in order.
        mean_map: float[H, W], ponder cost of every pixel, summed over blocks, mean over images.
        centre: float[N], mean ponder cost per pixel in the central half of the image.
        border: float[N], mean ponder cost per pixel in the other half.
        pictures: uint8[P, H, W, C], the first images.
        picture_maps: float[P, H_k, W_k] for each block, ponder cost of the first images.
    """

    error: Float[np.ndarray, "N"]
    nll: Float[np.ndarray, "N"]
    flops: Int[np.ndarray, "N"]
    blocks: tuple[BlockUsage, ...]
    mean_map: Float[np.ndarray, "H W"]
    centre: Float[np.ndarray, "N"]
    border: Float[np.ndarray, "N"]
    pictures: np.ndarray
    picture_maps: tuple[np.ndarray, ...]

    @property
    def accuracy(self) -> float:
        """Accuracy in %."""
        return 100 - 100 * float(np.mean(self.error))


def central_half(height: int, width: int) -> np.ndarray:
    """Returns bool[H, W], True in the central part of an image, about half of its area."""
    mask = np.zeros((height, width), bool)
    rows, columns = (2 * round(size * math.sqrt(0.5) / 2) for size in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    mask[top : top + rows, left : left + columns] = True
    return mask


def measure_usage(
    model: nn.Module,
    variables: Any,
    data: TestImages,
    *,
    flops: Flops,
    batch_size: int,
    rngs: Mapping[str, Any] | None = None,
    execution: Execution = "dense",
    **options: Any,
) -> DepthUsage:
    """Runs a network of adaptive depth over a split and measures error, cost and halting.

    Args:
        model: network of adaptive depth.
        variables: variables of the network.
        data: images to run on, in memory or streamed.
        flops: counts the FLOPs of a batch.
        batch_size: images per compiled step.
        rngs: keys by random stream, for modes that sample.
        execution: "dense" or "skipping". Results are equal up to rounding, except that the ponder
            cost of a probabilistic network that skips is the number of units that ran, not its
            expectation.
        **options: further arguments of the call, such as ``mode``.

    Raises:
        UserError: the network or the mode has no skipping form.
    """
    if execution == "skipping":
        variables = model.fold(variables)  # pyright: ignore[reportAttributeAccessIssue]

    @jax.jit
    def run(variables, data, start, number, rngs):
        batch = take_eval_batch(data, start, batch_size=batch_size)
        keys = {name: jax.random.fold_in(key, number) for name, key in rngs.items()}
        output = full_output(
            model, variables, batch["image"], rngs=keys, execution=execution, **options
        )
        logits = output.logits
        return (
            output,
            cross_entropy(logits, batch["label"]),
            is_error(logits, batch["label"]),
            ponder_map(output, image_size(data)),
        )

    sums = _Sums(image_size(data))
    for part, start, number in batches_of(data, batch_size):
        done = run(variables, part, jnp.int32(start), jnp.int32(number), dict(rngs or {}))
        output, nll, error, maps = jax.device_get(done)
        count = min(batch_size, data.size - number)
        if not number:
            sums.pictures = np.asarray(part.images[: min(PICTURED_IMAGES, count)])
        sums.add(output, nll[:count], error[:count], maps[:count], flops(output)[:count])
    return sums.use()


class _Sums:
    """Accumulator of batches."""

    def __init__(self, image_size: tuple[int, int]):
        self.pictures = np.zeros((0, *image_size, 3), np.uint8)
        self._inside = central_half(*image_size)
        self._columns: dict[str, list[np.ndarray]] = {}
        self._blocks: list[dict[str, Any]] = []
        self._map: Any = 0.0
        self._picture_maps: tuple[np.ndarray, ...] = ()

    def add(self, output, nll, error, maps, flops) -> None:
        count = len(nll)
        columns = {
            "nll": nll,
            "error": error,
            "flops": flops,
            "centre": maps[:, self._inside].mean(axis=1),
            "border": maps[:, ~self._inside].mean(axis=1),
        }
        for name, values in columns.items():
            self._columns.setdefault(name, []).append(values)
        self._map = self._map + maps.sum(axis=0, dtype=np.float64)
        if not self._blocks:
            self._blocks = [{"cost": [], "units": []} for _ in output.blocks]
            shown = len(self.pictures)
            self._picture_maps = tuple(
                np.asarray(b.broadcast_to_map(jnp.asarray(b.ponder_cost[:shown])))
                for b in output.blocks
            )
        for kept, block in zip(self._blocks, output.blocks, strict=True):
            _add_block(kept, block, count)

    def use(self) -> DepthUsage:
        columns = {name: np.concatenate(parts) for name, parts in self._columns.items()}
        blocks = tuple(
            BlockUsage(
                np.concatenate(kept["cost"]),
                np.concatenate(kept["units"]),
                kept["reached"] / kept["decisions"],
                kept["weight"] / kept["decisions"],
                kept["histogram"],
            )
            for kept in self._blocks
        )
        return DepthUsage(
            columns["error"],
            columns["nll"],
            columns["flops"],
            blocks,
            self._map / len(columns["nll"]),
            columns["centre"],
            columns["border"],
            self.pictures,
            self._picture_maps,
        )


def _add_block(kept: dict[str, Any], block: Any, count: int) -> None:
    """Adds the first `count` images of a batch to the sums of a block."""
    length = block.halting_probs.shape[-1]
    cost, units = (x[:count].reshape(count, -1) for x in (block.ponder_cost, block.num_units))
    probs = block.halting_probs[:count].reshape(-1, length)
    weights = block.weights[:count].reshape(-1, length)
    ran = np.arange(1, length + 1) <= units.reshape(-1, 1)
    kept["cost"].append(cost.mean(axis=1))
    kept["units"].append(units.mean(axis=1))
    histogram = np.stack(
        [np.histogram(probs[ran[:, i], i], HISTOGRAM_EDGES)[0] for i in range(length - 1)]
    )
    for name, value in (
        ("decisions", len(probs)),
        ("reached", ran.sum(axis=0)),
        ("weight", weights.sum(axis=0, dtype=np.float64)),
        ("histogram", histogram),
    ):
        kept[name] = kept.get(name, 0) + value


def use_metrics(use: DepthUsage) -> dict[str, Metric]:
    """Returns the metrics of a record: FLOPs, units and ponder cost by block, dead units."""
    count = use.error.size
    metrics = flops_metrics(use.flops)
    for i, block in enumerate(use.blocks, start=1):
        metrics[f"units.block{i}"] = Metric(float(block.units.mean()), "units", count)
        metrics[f"ponder.block{i}"] = Metric(float(block.cost.mean()), "units", count)
    ponder = sum(block.cost for block in use.blocks)
    metrics["ponder"] = Metric(float(np.mean(ponder)), "units", count, "summed over blocks")
    metrics["ponder_std"] = Metric(float(np.std(ponder)), "units", count, "over images")
    centre, border = use.centre, use.border
    metrics["ponder_centre"] = Metric(
        float(centre.mean()), "units", count, "central half of the image, summed over blocks"
    )
    metrics["ponder_border"] = Metric(float(border.mean()), "units", count, "the other half")
    more = 100 * float(np.mean(centre > border))
    metrics["ponder_centre_more"] = Metric(more, "%", count, "images with more in the centre")
    dead = sum(int(np.sum(block.reached < DEAD_BELOW)) for block in use.blocks)
    units = sum(block.reached.size for block in use.blocks)
    metrics["dead_units"] = Metric(
        float(dead), "units", units, f"run for fewer than {100 * DEAD_BELOW:g} % of decisions"
    )
    return metrics


def use_arrays(use: DepthUsage) -> dict[str, np.ndarray]:
    """Returns the arrays of a record, for figures."""
    arrays = {
        "halting_edges": HISTOGRAM_EDGES,
        "ponder_map": use.mean_map.astype(np.float32),
        "pictures": use.pictures,
    }
    for i, (block, maps) in enumerate(zip(use.blocks, use.picture_maps, strict=True), start=1):
        arrays[f"halting.block{i}"] = block.histogram
        arrays[f"reached.block{i}"] = block.reached
        arrays[f"weight.block{i}"] = block.weight
        arrays[f"picture_map.block{i}"] = maps.astype(np.float32)
    return arrays


def flops_metrics(flops: np.ndarray, *, count: int | None = None) -> dict[str, Metric]:
    """Returns mean and standard deviation over images of FLOPs = 2·MACs.

    Args:
        flops: float[N] or int[N], FLOPs of each image.
        count: number of images; N if None.
    """
    count = flops.size if count is None else count
    return {
        "flops": Metric(float(np.mean(flops)), "FLOPs", count, "per image"),
        "flops_std": Metric(float(np.std(flops)), "FLOPs", count, "over images"),
    }


def counter(model: Any, data: TestImages) -> Flops:
    """Returns a function that counts the FLOPs of each image from the units that ran."""
    size = image_size(data)
    return lambda output: flops_per_image(model, output, image_size=size)
