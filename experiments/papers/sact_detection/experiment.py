"""Runs one seed: trains a detector, measures precision and cost, and saves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset
from adaptive_nets.data.streams import StreamOptions
from adaptive_nets.detection import (
    FasterRCNN,
    create_detector,
    detection_objective,
    detection_task,
    start_from_classifier,
)
from adaptive_nets.detection.stored import (
    DETECTOR_FILE,
    StoredDetector,
    abstract_variables,
    save_detector,
)
from adaptive_nets.models import model_entry
from adaptive_nets.models.adaptive.forms import plain_form
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights import save_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.config import require
from adaptive_nets.training.depth import TauSchedule, set_head_bias
from adaptive_nets.training.duration import Timing
from adaptive_nets.training.loop import train
from adaptive_nets.training.task import Task
from adaptive_nets.variational import linear_warmup
from experiments.papers.sact_detection.fields import (
    AdaptiveDetectorTrainConfig,
    DetectorTrainConfig,
    HaltingConfig,
)
from experiments.papers.sact_detection.measures import (
    measure,
    metrics_of,
    reference_detector,
    speed_metrics,
)
from experiments.shared.export import NETWORK, normalisation_of
from experiments.shared.normalisation import normalised_as
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import (
    RANDOM,
    RunInputField,
    load_network,
    load_variables,
    resolve,
    training_of,
)

BACKBONE = "backbone"
"""Folder of the adaptive backbone by itself, for ponder maps and saliency."""
_FLAG = "--start.weights"
_FIELD = RunInputField("required", random=True)


def run(
    config: DetectorTrainConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one detector and measures it; see `experiments.suite.experiment.Runner`."""
    data = config.train.data
    require(data.labels == "true", "data.labels", data.labels, "'true': boxes have true labels")
    require(
        not data.per_image,
        "data.per-image",
        data.per_image,
        "False: the padding of an image would change its own statistics",
    )
    weights, theirs = starting_weights(config, seed=seed)
    values = dataclasses.replace(
        config.train, data=normalised_as(config.train.data, theirs, flag=_FLAG)
    )
    config = dataclasses.replace(config, train=values)
    task = detector_task(config, dataset.num_classes, weights)
    # A mistake in the flags of the measurement is found before the training.
    reference_detector(task.model, config.detector)
    result = train(
        task, values, dataset=dataset, directory=directory, seed=seed, progress=progress,
        title=title,
    )  # fmt: skip
    stored = StoredDetector(
        task.model,
        jax.device_get(result.state.eval_variables),
        normalisation_of(result, values.data),
        dataset.class_names,
        config.images.resize,
        config.images.multiple,
    )
    test, reading = dataset.streams["test"], values.run
    measured = measure(
        stored, test, config.detector, batch_size=values.data.eval_batch_size,
        options=StreamOptions(reading.input_workers, reading.input_threads, reading.input_prefetch),
        progress=progress, title=title,
    )  # fmt: skip
    metrics = metrics_of(measured, dataset.class_names)
    metrics |= speed_metrics(
        stored, test, batch_size=values.data.eval_batch_size, batches=config.timing.batches
    )
    note = {"seed": seed, "data": dataset.name, "overrides": overrides_of(config)}
    metrics |= export(stored, directory, note)
    return Outcome(
        metrics, measured.arrays, seconds=result.seconds, steps=result.timing.total_steps
    )


def starting_weights(
    config: DetectorTrainConfig, *, seed: int
) -> tuple[dict[str, Any] | None, InputNormalisation]:
    """Loads the classification network that the backbone starts from.

    Returns:
        Its variables, None for random ones; and the normalisation of its images by channel. One
        that standardises every image by itself, or subtracts a mean image, which a padded image
        cannot, gets the backbone's registered normalisation.

    Raises:
        UserError: none is named, it cannot be read, or it is another network.
    """
    where, backbone = config.start.weights, model_entry(config.train.model.name)
    registered = backbone.normalisation.to_input_normalisation()
    plain = plain_form(backbone.name)
    if not where:
        raise UserError(
            f"{_FLAG} is ''; expected a run or a weights file of {plain!r}, trained to classify, "
            "or 'random' to start from random weights"
        )
    if where == RANDOM:
        return None, registered
    found = resolve(where, _FIELD, flag="start.weights", seed=seed)
    if found.kind == "checkpoint":
        name = str(training_of(found).get("model.name", "unknown"))
        variables, theirs = load_variables(found), registered
    else:
        stored = load_network(found, plain if found.kind == "weights" else None)
        name, variables, theirs = stored.model, stored.variables, stored.normalisation
    if name not in (plain, backbone.name):
        raise UserError(
            f"{_FLAG} is {where!r}, which holds the network {name!r}; expected {plain!r}, the "
            f"network of --model.name {backbone.name}"
        )
    by_channel = theirs.offset.shape[:2] == (1, 1) and not theirs.per_image
    return variables, theirs if by_channel else registered


def overrides_of(config: DetectorTrainConfig) -> dict[str, Any]:
    """Returns the options of the backbone's builder that the configuration decides."""
    if not isinstance(config, AdaptiveDetectorTrainConfig):
        return {}
    return {"head_norm": config.halting.head_norm, "eps": config.halting.eps}


def tau_schedule(halting: HaltingConfig, timing: Timing) -> TauSchedule:
    """Builds the schedule of τ: a linear ramp from 0, then constant."""
    end, tau = timing.steps(halting.tau_ramp), jnp.float32(halting.tau)
    return lambda step: tau * (linear_warmup(step, start=0, end=end) if end else 1.0)


def build_detector(config: DetectorTrainConfig, num_classes: int) -> FasterRCNN:
    """Creates the detector of a configuration.

    Raises:
        UserError: the backbone is no residual network, or not of the depth, fixed or adaptive, that
            the experiment trains.
    """
    name = config.train.model.name
    adaptive = isinstance(config, AdaptiveDetectorTrainConfig)
    if (model_entry(name).adapts is not None) != adaptive:
        expected = "adaptive depth, such as its form with SACT" if adaptive else "fixed depth"
        raise UserError(f"--model.name is {name!r}; expected a residual network of {expected}")
    return create_detector(
        name,
        num_classes=num_classes,
        settings=config.detector.settings(),
        dtype=jnp.dtype(config.train.model.dtype),
        **overrides_of(config),
    )


def detector_task(
    config: DetectorTrainConfig, num_classes: int, weights: dict[str, Any] | None
) -> Task:
    """Builds the task of training a detector.

    Args:
        config: configuration of the run.
        num_classes: number of classes of the data set.
        weights: variables of the classification network to start from; None for random ones.

    Raises:
        UserError: the backbone cannot be a detector's, or the weights do not fit it.
    """
    detector = build_detector(config, num_classes)
    halting = config.halting if isinstance(config, AdaptiveDetectorTrainConfig) else None
    task = detection_task(detector, start=_start(config, weights))
    if weights is not None:
        # Before the data are read.
        jax.eval_shape(
            lambda variables: _fitted(config, variables, weights), abstract_variables(detector)
        )
    if halting is None:
        return task
    return dataclasses.replace(
        task, objective=lambda timing: detection_objective(tau_schedule(halting, timing))
    )


def _start(
    config: DetectorTrainConfig, weights: dict[str, Any] | None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        if isinstance(config, AdaptiveDetectorTrainConfig):
            params = set_head_bias(params, config.halting.bias)
        if weights is None:
            return params, model_state
        variables = _fitted(config, {"params": params, **model_state}, weights)
        return variables.pop("params"), variables

    return start


def _fitted(
    config: DetectorTrainConfig, variables: dict[str, Any], weights: dict[str, Any]
) -> dict[str, Any]:
    try:
        return start_from_classifier(variables, weights)
    except UserError as error:
        raise UserError(f"{_FLAG} is {config.start.weights!r}: {error}") from error


def export(stored: StoredDetector, directory: Path, note: dict[str, Any]) -> dict[str, Metric]:
    """Writes the detector, and an adaptive backbone by itself; returns the size as a metric.

    Args:
        stored: trained detector.
        directory: folder of the seed.
        note: provenance.
    """
    size = save_detector(directory / DETECTOR_FILE, stored, note=note)
    network = stored.detector.network
    if hasattr(network, "execution"):
        folder = directory / BACKBONE
        folder.mkdir(exist_ok=True)
        save_network(
            folder / NETWORK,
            model=stored.detector.backbone,
            num_classes=getattr(network, "num_classes"),  # noqa: B009
            variables={
                kind: tree["network"]
                for kind, tree in stored.variables.items()
                if "network" in tree
            },
            normalisation=stored.normalisation,
            note=note,
        )
    return {"file_size": Metric(float(size), "bytes")}
