"""Detection task of the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.detection.boxes import iou
from adaptive_nets.detection.decoding import Detections, detections
from adaptive_nets.detection.losses import detection_loss, mean_ponder_costs
from adaptive_nets.detection.network import STREAM, FasterRCNN
from adaptive_nets.detection.output import DetectorOutput
from adaptive_nets.detection.warm_start import start_from_classifier
from adaptive_nets.training.depth import TauSchedule
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Objective, Task


def detection_objective(rate: TauSchedule | None = None) -> Objective:
    """Builds the objective of detection: the terms of `detection_loss`, reported by name.

    Args:
        rate: schedule of τ; None for 0.
    """

    def objective(output, batch, params, step):
        del batch, params
        tau = 0.0 if rate is None else rate(step)
        loss = detection_loss(output, tau=tau)
        metrics = {
            "anchor_classes": Mean.of(loss.anchor_classes),
            "anchor_boxes": Mean.of(loss.anchor_boxes),
            "region_classes": Mean.of(loss.region_classes),
            "region_boxes": Mean.of(loss.region_boxes),
        }
        return loss.total, {**metrics, **_ponder_metrics(output)}

    return objective


def detection_measures(output: DetectorOutput, batch: Batch) -> dict[str, Mean]:
    """Computes quick measures of a batch; average precision is measured over the whole set.

    ``recall50`` is the share of true boxes that a detection of their class overlaps with an IoU of
    at least 0.5, ``proposal_recall50`` the share that a proposal does, ``detections`` the number of
    detections per image, and ``ponder/k`` the mean ponder cost of block k.
    """
    found, weight = detections(output), batch[WEIGHT]
    is_object = (batch["labels"] >= 0) & ~batch["crowd"]
    counted = is_object * weight[:, None]
    overlaps = jax.vmap(iou)(batch["boxes"], found.boxes)
    same = (batch["labels"][:, :, None] == found.labels[:, None]) & found.valid[:, None]
    proposed = jax.vmap(iou)(batch["boxes"], output.regions)
    return {
        "recall50": Mean.of(jnp.any((overlaps >= 0.5) & same, axis=2), counted),
        "proposal_recall50": Mean.of(jnp.any(proposed >= 0.5, axis=2), counted),
        "detections": Mean.of(_count(found), weight),
        **_ponder_metrics(output),
    }


def detection_task(
    detector: FasterRCNN,
    *,
    rate: TauSchedule | None = None,
    trained: Mapping[str, Any] | None = None,
    assess: Callable[[Any, DeviceSplit], Mapping[str, float]] | None = None,
    **others: Any,
) -> Task:
    """Builds the task of detecting ``boxes`` and ``labels`` in ``image``.

    The reader resizes and flips images with their boxes, so by default nothing is changed on the
    device; for a set in memory, `adaptive_nets.data.boxes.flip_rows` as ``augment`` flips there.
    The loop's own crops and flips would leave the boxes behind, and are refused.

    Args:
        detector: network of `create_detector`.
        rate: schedule of τ, weight of the ponder cost; None for 0.
        trained: variables of a trained classification network to start from, see
            `start_from_classifier`; None for random weights.
        assess: (variables, test set) -> further values at every evaluation, such as average
            precision; None for none.
        **others: further attributes of `Task`.
    """
    objective = detection_objective(rate)

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        assert trained is not None
        variables = start_from_classifier({"params": params, **model_state}, trained)
        return variables.pop("params"), variables

    def build_objective(timing: Timing) -> Objective:
        del timing
        return objective

    chosen: dict[str, Any] = {"augment": _unchanged}
    if trained is not None:
        chosen["start"] = start
    if assess is not None:
        chosen["assess"] = assess
    return Task(
        detector,
        build_objective,
        detection_measures,
        _recall_in_percent,
        inputs=_whole_batch,
        streams=(STREAM,),
        **{**chosen, **others},
    )


def _count(found: Detections) -> Float[Array, "N"]:
    return jnp.sum(found.valid, axis=1).astype(jnp.float32)


def _ponder_metrics(output: DetectorOutput) -> dict[str, Mean]:
    costs = mean_ponder_costs(output)
    return {f"ponder/{i}": Mean.of(cost) for i, cost in enumerate(costs, start=1)}


def _recall_in_percent(measured: Mapping[str, float]) -> dict[str, float]:
    return {"recall50 %": 100 * measured["recall50"]}


def _whole_batch(batch: Batch) -> Batch:
    return batch


def _unchanged(key: Any, rows: Batch) -> Batch:
    del key
    return rows
