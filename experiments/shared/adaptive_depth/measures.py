"""What is measured on a network of adaptive depth: cost per image, who halts where, and when."""

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

from adaptive_nets.data.device import DeviceSplit, take_eval_batch
from adaptive_nets.models import ModelOutput, logits_of, ponder_map
from adaptive_nets.models.adaptive.cost import flops_per_image
from adaptive_nets.models.adaptive.network import Execution
from adaptive_nets.training.losses import cross_entropy, is_error
from experiments.suite.experiment import Metric

PICTURED_IMAGES = 12
HISTOGRAM_EDGES = np.linspace(0.0, 1.0, 21)
# A unit that fewer decisions than this reach is counted as dead.
DEAD_BELOW = 0.01

Flops = Callable[[ModelOutput], np.ndarray]
"""Output of a batch -> FLOPs of each image, int64[N]."""


@dataclasses.dataclass(frozen=True)
class BlockUsage:
    """What one block of L units did, over images and over their decisions.

    Attributes:
        cost: float[N], mean ponder cost of each image's decisions.
        units: float[N], mean number of units.
        reached: float[L], share of decisions that each unit ran for.
        weight: float[L], mean share of each unit's state in the output.
        histogram: int[L − 1, bins], halting probabilities where the unit ran.
    """

    cost: Float[np.ndarray, "N"]
    units: Float[np.ndarray, "N"]
    reached: Float[np.ndarray, "L"]
    weight: Float[np.ndarray, "L"]
    histogram: Int[np.ndarray, "L1 B"]


@dataclasses.dataclass(frozen=True)
class DepthUsage:
    """One pass over a set of images.

    Attributes:
        error: float[N], 1 where the class is wrong.
        nll: float[N], nats.
        flops: int64[N], 2 per multiply-accumulate.
        blocks: from the input onwards.
        mean_map: float[H, W], ponder cost of every pixel, summed over blocks, mean over images.
        centre: float[N], its mean inside the central half of the image.
        border: float[N], outside.
        pictures: uint8[P, H, W, C], the first images.
        picture_maps: for each block, float[P, H_k, W_k], their ponder cost.
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
        """In %."""
        return 100 - 100 * float(np.mean(self.error))


def central_half(height: int, width: int) -> np.ndarray:
    """Mask of the central part of an image with half of its area, or next to it: bool[H, W]."""
    mask = np.zeros((height, width), bool)
    rows, columns = (2 * round(size * math.sqrt(0.5) / 2) for size in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    mask[top : top + rows, left : left + columns] = True
    return mask


def measure_usage(
    model: nn.Module,
    variables: Any,
    data: DeviceSplit,
    *,
    flops: Flops,
    batch_size: int,
    rngs: Mapping[str, Any] | None = None,
    execution: Execution = "dense",
    **options: Any,
) -> DepthUsage:
    """Runs a network of adaptive depth over a split and measures error, cost and halting.

    Args:
        model: the network.
        variables: its variables.
        data: the split.
        flops: counts the cost of a batch.
        batch_size: images at a time.
        rngs: random streams, for modes that sample.
        execution: "skipping" saves time where much has halted. Everything but one measure is equal
            to rounding: the ponder cost of a probabilistic network is then the number of units
            that ran, not its expectation.
        **options: options of the call, such as ``mode``.

    Raises:
        UserError: the network or the mode has no skipping form.
    """
    if execution == "skipping":
        variables = model.fold(variables)  # pyright: ignore[reportAttributeAccessIssue]

    @jax.jit
    def run(variables, data, start, rngs):
        batch = take_eval_batch(data, start, batch_size=batch_size)
        keys = {name: jax.random.fold_in(key, start) for name, key in rngs.items()}
        output = model.apply(
            variables, batch["image"], train=False, rngs=keys, execution=execution, **options
        )
        logits = logits_of(output)
        image_size = batch["image"].shape[1:3]
        return (
            output,
            cross_entropy(logits, batch["label"]),
            is_error(logits, batch["label"]),
            ponder_map(output, image_size),  # pyright: ignore[reportArgumentType]
        )

    sums = _Sums(data)
    for start in range(0, data.size, batch_size):
        done = run(variables, data, jnp.int32(start), dict(rngs or {}))
        output, nll, error, maps = jax.device_get(done)
        count = min(batch_size, data.size - start)
        sums.add(output, nll[:count], error[:count], maps[:count], flops(output)[:count])
    return sums.use()


class _Sums:
    """Adds up batches."""

    def __init__(self, data: DeviceSplit):
        self._data = data
        self._inside = central_half(*data.images.shape[1:3])
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
            shown = min(PICTURED_IMAGES, count)
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
            np.asarray(self._data.images[: len(self._picture_maps[0])]),
            self._picture_maps,
        )


def _add_block(kept: dict[str, Any], block: Any, count: int) -> None:
    """Takes the first `count` images of a batch into the sums of a block."""
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
    """Numbers of a record: cost per image, depth per block, centre against border, dead units."""
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
    """Small arrays for figures."""
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
    """Mean and standard deviation over images of FLOPs = 2·MACs.

    Args:
        flops: float or int [N], one per image.
        count: number of images, where it is not N.
    """
    count = flops.size if count is None else count
    return {
        "flops": Metric(float(np.mean(flops)), "FLOPs", count, "per image"),
        "flops_std": Metric(float(np.std(flops)), "FLOPs", count, "over images"),
    }


def counter(model: Any, data: DeviceSplit) -> Flops:
    """Counts the FLOPs of each image from what halting did."""
    height, width = data.images.shape[1:3]
    return lambda output: flops_per_image(model, output, image_size=(height, width))
