"""Metrics and arrays of a searched network: errors, the path of the search, impacts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.perforation import ConvLayer, GreedySearch, SearchResult, pooling_counts
from adaptive_nets.perforation.candidates import searched_layers
from adaptive_nets.perforation.impact_structure import centre_bias, pooling_correlation
from experiments.suite.experiment import Metric


def error_metrics(
    before: Any, after: Any, tuned: Any, control: Any, *, note: str
) -> dict[str, Metric]:
    """Returns test errors of the networks and their increases.

    Args:
        before: Values of the original network.
        after: Values of the perforated network.
        tuned: Values of the perforated network after fine-tuning.
        control: Values of the original network after the same fine-tuning. Against it, the increase
            does not count what more training of any network gains.
        note: Note on the original network.
    """
    count = int(before["count"])

    def increase(values: Any, base: Any, note: str) -> Metric:
        return Metric(100 * (values["error"] - base["error"]), "%", count, note)

    return {
        "error": Metric(100 * before["error"], "%", count, note),
        "perforated_error": Metric(100 * after["error"], "%", count),
        "tuned_error": Metric(100 * tuned["error"], "%", count),
        "control_error": Metric(
            100 * control["error"], "%", count, "unperforated, tuned as long with the same recipe"
        ),
        "error_increase": increase(after, before, "points"),
        "tuned_error_increase": increase(tuned, before, "points"),
        "tuned_increase_over_control": increase(
            tuned, control, "points; against the unperforated network tuned as long"
        ),
    }


def search_metrics(found: SearchResult) -> dict[str, Metric]:
    """Returns steps, reduction and increase of the loss of the search."""
    last = found.steps[-1].loss if found.steps else found.loss
    return {
        "search_steps": Metric(float(len(found.steps)), "steps", 1, f"ended by {found.ended}"),
        "search_reduction": Metric(found.reduction, "x", 1, "of the cost of the search"),
        "search_loss_increase": Metric(last - found.loss, "nats", 1, "on training images"),
    }


def search_arrays(
    search: GreedySearch, found: SearchResult, macs: ExecutedMacs
) -> dict[str, np.ndarray]:
    """Returns loss, reduction of cost and MACs, layer and keep fraction by step of the search."""
    plans = [search.plan_at_step(step.number) for step in found.steps]
    amounts = [found.seconds_or_macs, *(step.seconds_or_macs for step in found.steps)]
    return {
        "search_loss": np.array([found.loss, *(step.loss for step in found.steps)]),
        "search_reduction": found.seconds_or_macs / np.array(amounts),
        "search_macs_reduction": macs.whole / np.array([macs.whole, *map(macs, plans)], np.float64),
        "search_layer": np.array([step.layer for step in found.steps], np.str_),
        "search_keep": np.array([step.keep for step in found.steps], np.float64),
    }


def impact_metrics(layers: tuple[ConvLayer, ...], maps: dict[str, np.ndarray]) -> dict[str, Metric]:
    """Returns the centre bias of impact maps and their correlation with the pooling grid."""
    metrics = {}
    for layer in searched_layers(layers):
        impact = maps[layer.name]
        # Random weights may have no gradient, and then no impact.
        bias = centre_bias(impact) if impact.sum() > 0 else None
        metrics[f"centre_bias.{layer.name}"] = Metric(
            bias, "x", impact.size, "central half over all" if bias else "no impact"
        )
        if layer.pooling is None:
            continue
        pooling = layer.pooling
        counts = pooling_counts(layer.output_size, pooling.window, pooling.strides, pooling.padding)
        value = pooling_correlation(impact, counts)
        note = (
            ""
            if value is not None and math.isfinite(value)
            else "undefined: the impacts or the pooling counts are constant"
        )
        metrics[f"pooling_correlation.{layer.name}"] = Metric(value, "r", impact.size, note)
    return metrics
