"""Second stage of two-stage training: a trained plain network becomes one of adaptive depth.

One network is tuned for each τ, all from the same weights and with the same recipe, each in a
folder of its own, ``tau0.01`` for example. Metrics and arrays of each τ end in that name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adaptive_nets.analysis import count_macs
from adaptive_nets.data.device import put_on_devices, take_eval_batch
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model, logits_of, model_entry
from adaptive_nets.models.adaptive.forms import adaptive_form, plain_form
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.distillation import distilled
from adaptive_nets.training.loop import TrainResult, train
from adaptive_nets.training.losses import is_error
from adaptive_nets.training.task import Task
from experiments.shared.adaptive_depth.configs import DepthConfig, TunedDepthConfig
from experiments.shared.adaptive_depth.images import (
    StreamedImages,
    TestImages,
    batches_of,
    image_size,
    images_of,
)
from experiments.shared.adaptive_depth.measures import DepthUsage, use_arrays, use_metrics
from experiments.shared.adaptive_depth.warm_start import (
    FLAG,
    find_plain,
    load_plain,
    plain_rate_factors,
    registered_normalisation,
)
from experiments.shared.export import export_network
from experiments.shared.normalisation import check_channels, check_normalisation, normalised_as
from experiments.suite.experiment import Metric, Outcome

PLAIN_ACCURACY, PLAIN_FLOPS = "plain_accuracy", "plain_flops"


@dataclasses.dataclass(frozen=True)
class Method:
    """Halting rule with its task and measures.

    Attributes:
        rule: halting rule of the networks.
        make_task: (configuration of the training, settings of one τ) -> task.
        measure: (task, result of its training, test images) -> halting statistics of the network,
            and further metrics.
        overrides: settings of one τ -> options of the network.
    """

    rule: str
    make_task: Callable[[TrainConfig, Any], Task]
    measure: Callable[[Task, TrainResult, TestImages], tuple[DepthUsage, dict[str, Metric]]]
    overrides: Callable[[Any], dict[str, Any]]


def tau_name(tau: float) -> str:
    """Returns the name of a τ in folders, metrics and arrays."""
    return f"tau{tau:g}"


def tune_each(
    method: Method,
    values: TrainConfig,
    halting: TunedDepthConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Tunes and measures one network for each τ; see `experiments.suite.experiment.Runner`.

    Raises:
        UserError: the plain network is absent, of another kind, or of other classes than the data.
    """
    if not halting.start_from:
        raise UserError(
            f"{FLAG} is ''; expected the folder of a finished run of a plain network, a weights "
            "file, or 'random' to try the command"
        )
    values = _named_form(values, method.rule)
    name = values.model.name
    check_channels(plain_form(name), dataset)
    found = find_plain(halting.start_from, seed=seed)
    stored, normalisation = None, registered_normalisation(name)
    if found is not None:
        stored, normalisation = load_plain(found, name)
        _check_classes(stored, halting.start_from, dataset)
    values = dataclasses.replace(values, data=normalised_as(values.data, normalisation, flag=FLAG))
    images = _test_images(dataset, values)
    # A file of another tool does not say how its images were normalised.
    known = found is not None and found.kind in ("run", "network")
    if known and normalisation is not None and not isinstance(images, StreamedImages):
        check_normalisation(normalisation, images, source=f"{FLAG} {halting.start_from}")
    plain = _PlainNetwork.make(plain_form(name), stored, dataset, values, seed=seed)
    metrics = _plain_metrics(plain, images, values)
    accuracy = metrics[PLAIN_ACCURACY].value
    assert accuracy is not None
    progress.show(f"{title}: the plain network classifies {accuracy:.2f} % correctly")
    arrays: dict[str, np.ndarray] = {"taus": np.array(halting.taus)}
    seconds, steps = 0.0, 0
    for number, tau in enumerate(halting.taus, start=1):
        settings: DepthConfig = halting.at(tau)
        task = dataclasses.replace(
            method.make_task(values, settings), rate_factors=plain_rate_factors(halting.plain_rate)
        )
        if halting.distillation:
            task = dataclasses.replace(
                task,
                objective=distilled(
                    task.objective, plain.logits, share=halting.distillation,
                    temperature=halting.softening,
                ),
            )  # fmt: skip
        folder = directory / tau_name(tau)
        folder.mkdir(parents=True, exist_ok=True)
        shown = f"{title}: tau {tau:g} ({number} of {len(halting.taus)})"
        result = train(
            task, values, dataset=dataset, directory=folder, seed=seed, progress=progress,
            title=shown,
        )  # fmt: skip
        use, more = method.measure(task, result, images_of(result.test, values))
        of_tau = use_metrics(use) | depth_metrics(use, plain=metrics) | more
        of_tau |= export_network(
            values, result, dataset.num_classes, folder, seed, overrides=method.overrides(settings)
        )
        metrics |= {f"{key}.{tau_name(tau)}": metric for key, metric in of_tau.items()}
        arrays |= {f"{key}.{tau_name(tau)}": array for key, array in use_arrays(use).items()}
        seconds, steps = seconds + result.seconds, result.timing.total_steps
        progress.show(
            f"{shown}: {use.accuracy:.2f} % correct at {1e-6 * float(np.mean(use.flops)):.1f} "
            f"MFLOPs, {of_tau['flops_share'].value:.1f} % of the plain network's"
        )
    return Outcome(metrics, arrays, seconds=seconds, steps=steps)


def depth_metrics(use: DepthUsage, *, plain: dict[str, Metric]) -> dict[str, Metric]:
    """Returns accuracy, cost beside the plain network, and what an image's cost goes along with.

    Args:
        use: halting statistics over the test images.
        plain: metrics of the plain network.
    """
    count = use.error.size
    whole = plain[PLAIN_FLOPS].value
    assert whole is not None
    centre, border = float(use.centre.mean()), float(use.border.mean())
    return {
        "test_accuracy": Metric(use.accuracy, "%", count),
        "nll": Metric(float(np.mean(use.nll)), "nats", count),
        "flops_share": Metric(
            100 * float(np.mean(use.flops)) / whole, "%", count, "of the plain network"
        ),
        "ponder_ratio": Metric(
            centre / border if border else None, "x", count,
            "central half of the image over the other half",
        ),
        "loss_correlation": _correlation(use.flops, use.nll, "loss"),
        "error_correlation": _correlation(use.flops, use.error, "error"),
    }  # fmt: skip


def _correlation(flops: np.ndarray, other: np.ndarray, name: str) -> Metric:
    note = f"of an image's FLOPs with its {name}"
    if np.std(flops) == 0 or np.std(other) == 0:
        return Metric(None, "r", flops.size, f"{note}; undefined, since one of them is constant")
    return Metric(float(np.corrcoef(flops, other)[0, 1]), "r", flops.size, note)


def _named_form(values: TrainConfig, rule: str) -> TrainConfig:
    try:
        name = adaptive_form(values.model.name, rule)
    except UserError as error:
        raise UserError(f"--model.name: {error}") from error
    return dataclasses.replace(values, model=dataclasses.replace(values.model, name=name))


def _check_classes(stored: Any, where: str, dataset: Dataset) -> None:
    classifier = [leaf for leaf in jax.tree.leaves(stored["params"]) if np.ndim(leaf) == 2]
    there = {np.shape(leaf)[1] for leaf in classifier}
    if classifier and dataset.num_classes not in there:
        raise UserError(
            f"{FLAG} is {where!r}, a network of {max(there)} classes; expected "
            f"{dataset.num_classes}, the classes of --data.name {dataset.name}"
        )


def _test_images(dataset: Dataset, values: TrainConfig) -> TestImages:
    if dataset.streams:
        return StreamedImages(dataset.streams["test"], values)
    _, test = put_on_devices(
        dataset, values.data, lambda split: jax.device_put(split, jax.local_devices()[0])
    )
    return test


@dataclasses.dataclass(frozen=True)
class _PlainNetwork:
    """Trained plain network.

    Attributes:
        name: name in the registry.
        model: the network.
        variables: its variables, NumPy arrays.
    """

    name: str
    model: nn.Module
    variables: Any

    @classmethod
    def make(
        cls, name: str, stored: Any | None, dataset: Dataset, values: TrainConfig, *, seed: int
    ) -> Self:
        """Makes the network; without stored variables it is an initialised one."""
        model = create_model(
            name, num_classes=dataset.num_classes, dtype=jnp.dtype(values.model.dtype)
        )
        if stored is None:
            example = jnp.zeros((1, *model_entry(name).input_shape))
            init = jax.jit(lambda key: model.init(key, example, train=False))
            stored = jax.device_get(init(jax.random.key(seed)))
        return cls(name, model, stored)

    def logits(self, images: Array) -> Array:
        """Computes logits of normalised images."""
        return logits_of(self.model.apply(self.variables, images, train=False))


def _plain_metrics(
    plain: _PlainNetwork, images: TestImages, values: TrainConfig
) -> dict[str, Metric]:
    """Returns accuracy and FLOPs of the plain network before it is tuned."""
    batch_size = values.data.eval_batch_size

    @jax.jit
    def errors(data, start):
        batch = take_eval_batch(data, start, batch_size=batch_size)
        return is_error(plain.logits(batch["image"]), batch["label"])

    found = [
        np.asarray(errors(part, jnp.int32(start)))[: images.size - number]
        for part, start, number in batches_of(images, batch_size)
    ]
    error = float(np.mean(np.concatenate(found)))
    shape = (*image_size(images), model_entry(plain.name).input_shape[2])
    macs = count_macs(plain.model, input_shape=shape)
    note = f"{plain.name} before tuning"
    return {
        PLAIN_ACCURACY: Metric(100 - 100 * error, "%", images.size, note),
        PLAIN_FLOPS: Metric(2.0 * macs, "FLOPs", 1, f"per image, {plain.name}"),
    }
