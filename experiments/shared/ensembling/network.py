"""Trained network of a run or of a weights file, as a function from pixels to log-probabilities."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.ensembling import make_predictor
from adaptive_nets.ensembling.views import Predictor
from adaptive_nets.models import create_model, model_entry
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.weights.stored import check_fits
from adaptive_nets.runtime.errors import UserError
from experiments.shared.digests import array_digest
from experiments.shared.normalisation import check_channels
from experiments.suite.run_inputs import RANDOM, RunInputField, load_network, resolve


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """Trained network that is only evaluated.

    Attributes:
        name: name in the registry.
        module: the network.
        variables: its variables, NumPy arrays.
        normalisation: normalisation of its inputs.
        digest: sixteen hexadecimal digits of the variables.
    """

    name: str
    module: nn.Module
    variables: Any
    normalisation: InputNormalisation
    digest: str

    def predictor(self) -> Predictor:
        """Returns the network as a function of pixels."""
        return make_predictor(self.module, self.variables, self.normalisation)


def load_trained(
    weights: str, name: str, dataset: Dataset, *, seed: int, flag: str = "weights",
    any_classes: bool = False,
) -> TrainedNetwork:  # fmt: skip
    """Loads a trained network for the images of a data set.

    Args:
        weights: a run, a weights file, or "random".
        name: name of the network in the zoo.
        dataset: data set to predict.
        seed: seed of the run, or of random weights.
        flag: name of the flag that has `weights`.
        any_classes: whether other classes than those of the data set are accepted, for embeddings.

    Raises:
        UserError: the network is absent, of another kind, or of other classes than the data.
    """
    option = "--" + flag.replace("_", "-")
    if not weights:
        raise UserError(
            f"{option} is ''; expected the folder of a finished run, a weights file, or 'random' "
            "to try the command"
        )
    check_channels(name, dataset)
    found = resolve(weights, RunInputField("required", random=True), flag=flag, seed=seed)
    entry = model_entry(name)
    example = jnp.zeros((1, *entry.input_shape))
    if weights == RANDOM:
        module = create_model(name, num_classes=dataset.num_classes)
        init = jax.jit(
            lambda key: module.init(key, jnp.zeros((1, *entry.input_shape)), train=False)
        )
        variables = jax.device_get(init(jax.random.key(seed)))
        normalisation = entry.normalisation.to_input_normalisation()
    else:
        stored = load_network(found, name)
        classes = stored.num_classes
        if classes != dataset.num_classes and not any_classes:
            raise UserError(
                f"{option} is {weights!r}, a network of {classes} classes; expected "
                f"{dataset.num_classes}, the classes of --data.name {dataset.name}"
            )
        overrides = dict(stored.note.get("overrides", {}))
        module = create_model(name, num_classes=classes, **overrides)
        variables, normalisation = stored.variables, stored.normalisation
        expected = jax.eval_shape(
            lambda key: module.init(key, example, train=False), jax.random.key(0)
        )
        check_fits(variables, expected, source=f"{option} {weights}")
    return TrainedNetwork(entry.name, module, variables, normalisation, array_digest(variables))


def evaluation_split(dataset: Dataset) -> Split:
    """Returns the test set in memory.

    Raises:
        UserError: the data set is streamed.
    """
    return _in_memory(dataset, dataset.test)


def training_split(dataset: Dataset) -> Split:
    """Returns the training set in memory.

    Raises:
        UserError: the data set is streamed.
    """
    return _in_memory(dataset, dataset.train)


def _in_memory(dataset: Dataset, split: Split | None) -> Split:
    if split is None:
        raise UserError(
            f"--data.name is {dataset.name!r}, which is streamed from disk; expected a data set "
            "that fits into memory, such as cifar10"
        )
    return split
