"""One trained network of adaptive depth at any budget.

    calibration = calibrate_budget(model, variables, unlabelled)
    network = with_budget(model, variables, calibration)
    output = network(images, 0.6)  # 60 % of the plain network's FLOPs, on average

One program serves all budgets; a budget per image serves mixed requests in one batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int64

from adaptive_nets.halting import (
    BudgetCalibration,
    budget_shift,
    calibrate_shifts,
    check_budget,
    image_dither,
)
from adaptive_nets.halting.arguments import check_positive_integer
from adaptive_nets.models.adaptive.cost import flops_per_image, plain_flops
from adaptive_nets.models.adaptive.units import MapSize
from adaptive_nets.models.output import ModelOutput
from adaptive_nets.runtime.errors import UserError

FlopsFn = Callable[[np.ndarray, np.ndarray], Any]
"""(images [N, ...], shifts float32[N]) -> FLOPs of each image, [N]."""


def calibrate_budget(
    model: Any,
    variables: Any,
    images: Float[Array, "M H W C"],
    *,
    batch_size: int = 128,
    execution: str | None = None,
    resolution: float = 0.02,
    evaluations: int = 64,
) -> BudgetCalibration:
    """Measures the cost of a trained network at shifts of its halting logits, without labels.

    The network runs on all images for each shift. The mean cost of other images of the same
    distribution deviates from a budget by the sampling error of both sets: with a standard
    deviation s of the cost of an image, by about s / √M.

    Args:
        model: `AdaptiveNetwork` with the rule "act", "sact" or "pact"; the last is thresholded.
        variables: its variables; folded ones for skipping execution.
        images: float[M, H, W, C], inputs of the network, a few hundred or more.
        batch_size: images per step.
        execution: "dense" or "skipping"; None for the model's.
        resolution: gap between measured costs at which to stop, relative to the range of costs.
        evaluations: largest number of shifts.

    Raises:
        UserError: there are no images, or the model is no network of adaptive depth.
    """
    if not hasattr(model, "block_costs"):
        raise UserError(
            f"model is {type(model).__name__}; expected a network of adaptive depth (adaptive-nets "
            "models '*act*' lists some)"
        )
    if np.ndim(images) != 4 or not len(images):
        raise UserError(
            f"images have shape {np.shape(images)}; expected [M, H, W, C] with at least one image"
        )
    forward, image_size = _forward(model, execution), _size(images)

    def flops(batch: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        return flops_per_image(model, forward(variables, batch, shifts), image_size=image_size)

    example = jax.ShapeDtypeStruct((1, *np.shape(images)[1:]), jnp.float32)
    shapes = jax.eval_shape(forward, variables, example, np.zeros(1, np.float32))
    return calibrate_on_images(
        flops,
        images,
        plain_flops=plain_flops(model, shapes, image_size=image_size),
        batch_size=batch_size,
        resolution=resolution,
        evaluations=evaluations,
    )


def calibrate_on_images(
    flops_fn: FlopsFn,
    images: Float[Array, "M ..."],
    *,
    plain_flops: float,
    batch_size: int = 128,
    resolution: float = 0.02,
    evaluations: int = 64,
) -> BudgetCalibration:
    """Measures the cost of any function with halting blocks, as `calibrate_budget` does.

    Args:
        flops_fn: function (images [N, ...], shifts float32[N]) -> FLOPs of each image, [N].
        images: [M, ...], inputs of the function.
        plain_flops: FLOPs per image without halting, all units.
        batch_size: images per step; the last batch is padded, so that one shape is compiled.
        resolution: see `calibrate_budget`.
        evaluations: see `calibrate_budget`.

    Raises:
        UserError: there are no images, or `batch_size` is not a positive integer.
    """
    check_positive_integer("batch_size", batch_size)
    if np.ndim(images) < 1 or not len(images):
        raise UserError(f"images have shape {np.shape(images)}; expected at least one image")
    size = min(batch_size, len(images))
    starts = range(0, len(images), size)
    batches = [_padded(np.asarray(images[start : start + size]), size) for start in starts]

    def measure(shift: float) -> float:
        shifts, total = np.full(size, shift, np.float32), 0.0
        for batch, start in zip(batches, starts, strict=True):
            flops = np.asarray(flops_fn(batch, shifts), np.float64)
            total += float(flops[: len(images) - start].sum())
        return total / len(images)

    return calibrate_shifts(
        measure, plain_flops=plain_flops, resolution=resolution, evaluations=evaluations
    )


@dataclasses.dataclass(frozen=True, eq=False)
class BudgetedNetwork:
    """Trained network with its calibration: (images, budget) -> output.

    Attributes:
        model: network of adaptive depth.
        variables: its variables.
        calibration: from `calibrate_budget`.
        execution: "dense" or "skipping"; None for the model's.
    """

    model: Any
    variables: Any
    calibration: BudgetCalibration
    execution: str | None = None

    def __call__(
        self, images: Float[Array, "N H W C"], budget: float | Float[Array, "N"]
    ) -> ModelOutput:
        """Computes logits and halting traces at a budget.

        Args:
            images: float[N, H, W, C].
            budget: FLOPs per image or, up to 2, a share of the plain network's FLOPs, met on
                average over images; one number, or one per image.

        Raises:
            UserError: a budget is below the cost of the first units or above that of the whole
                network, or the number of budgets is not N.
        """
        check_budget(self.calibration, budget, images=len(images))
        budgets = jnp.broadcast_to(jnp.asarray(budget, jnp.float32), (len(images),))
        shifts = budget_shift(self.calibration, budgets, image_dither(jnp.asarray(images)))
        return self._program(self.variables, images, shifts)

    def flops(self, images: Float[Array, "N H W C"], output: ModelOutput) -> Int64[Any, "N"]:
        """Counts the FLOPs that each image took, int64[N]."""
        return flops_per_image(self.model, output, image_size=_size(images))

    @functools.cached_property
    def _program(self) -> Any:
        return _forward(self.model, self.execution)


def with_budget(
    model: Any,
    variables: Any,
    calibration: BudgetCalibration,
    *,
    execution: str | None = None,
) -> BudgetedNetwork:
    """Returns a function (images, budget) -> `ModelOutput` of a trained network.

    Args:
        model: `AdaptiveNetwork`.
        variables: its variables; folded ones for skipping execution.
        calibration: from `calibrate_budget`, with the same variables.
        execution: "dense" or "skipping"; None for the model's.
    """
    return BudgetedNetwork(model, variables, calibration, execution)


def _forward(model: Any, execution: str | None) -> Any:
    """Returns the compiled function (variables, images, shift of each image) -> output."""

    @jax.jit
    def forward(variables: Any, images: Array, shifts: Array) -> ModelOutput:
        return model.apply(
            variables, images, execution=execution, halting_shift=shifts, method="full_output"
        )

    return forward


def _size(images: Any) -> MapSize:
    height, width = np.shape(images)[1:3]
    return height, width


def _padded(images: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
