"""Export of the trained network of a run to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models.weights import InputNormalisation, save_network
from adaptive_nets.training.config import DataConfig, TrainConfig
from adaptive_nets.training.loop import TrainResult
from adaptive_nets.training.streamed import normalisation_constants
from experiments.suite.experiment import Metric

NETWORK = "network.safetensors"


def normalisation_of(result: TrainResult, config: DataConfig | None = None) -> InputNormalisation:
    """Returns the input normalisation of a trained network.

    Args:
        result: result of the training.
        config: normalisation of images; needed if the test set is streamed.
    """
    data = result.test
    if not isinstance(data, DeviceSplit):
        assert config is not None
        offset, scale, pixel_scale = normalisation_constants(data, config)
        return InputNormalisation(float(pixel_scale), offset, scale, config.per_image)
    offset, scale, pixel_scale = jax.device_get((data.offset, data.scale, data.pixel_scale))
    return InputNormalisation(float(pixel_scale), offset, scale, data.per_image)


def export_network(
    config: TrainConfig,
    result: TrainResult,
    num_classes: int,
    directory: Path,
    seed: int,
    *,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Metric]:
    """Writes the network to network.safetensors and returns the size of the file as a metric.

    Args:
        config: configuration of the training.
        result: result of the training.
        num_classes: number of outputs of the network.
        directory: folder of the seed.
        seed: seed of the run.
        overrides: options of `create_model`.
    """
    size = save_network(
        directory / NETWORK,
        model=config.model.name,
        num_classes=num_classes,
        variables=jax.device_get(result.state.eval_variables),
        normalisation=normalisation_of(result, config.data),
        note={"seed": seed, "data": config.data.name, "overrides": dict(overrides or {})},
    )
    return {"file_size": Metric(float(size), "bytes")}
