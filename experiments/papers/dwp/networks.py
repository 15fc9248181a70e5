"""Target networks: their kernel sizes, initial kernels and export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.loop import TrainResult
from adaptive_nets.variational.deep_weight_prior import init_convolutions
from adaptive_nets.variational.deep_weight_prior.sampling import KernelInitializer
from adaptive_nets.variational.deep_weight_prior.slices import convolution_kernels
from experiments.papers.dwp.fields import NetworkConfig
from experiments.shared.export import export_network
from experiments.suite.experiment import Metric


def build(config: TrainConfig, network: NetworkConfig, dataset: Dataset) -> nn.Module:
    """Builds the plain network of a configuration.

    Raises:
        UserError: the network has no widths, or another number of them.
    """
    try:
        return create_model(
            config.model.name, num_classes=dataset.num_classes,
            dtype=jnp.dtype(config.model.dtype), **network.overrides(),
        )  # fmt: skip
    except UserError as error:
        if not network.widths:
            raise
        raise UserError(f"--network.widths {network.widths}: {error}") from error


def kernel_sizes(module: nn.Module, dataset: Dataset) -> list[tuple[int, int]]:
    """Returns the kernel sizes of the convolutions of a network, without repetition."""
    split = dataset.test if dataset.train is None else dataset.train
    assert split is not None
    shapes = jax.eval_shape(
        lambda key: module.init(key, jnp.zeros((1, *split.images.shape[1:]))), jax.random.key(0)
    )
    found = (kernel.shape[:2] for _, kernel in convolution_kernels(shapes["params"]))
    return list(dict.fromkeys(found))


def start_from(
    initializers: Mapping[tuple[int, int], KernelInitializer], *, seed: int, inside: str = ""
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns the `start` of a task that draws the kernels of all convolutions.

    Args:
        initializers: initialiser of each kernel size.
        seed: seed of the draws.
        inside: name of the sub-tree of the plain network's parameters; "" for the whole tree.
    """

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        key = jax.random.key(seed)
        if inside:
            return {
                **params, inside: init_convolutions(key, params[inside], initializers)
            }, model_state  # fmt: skip
        return init_convolutions(key, params, initializers), model_state

    return start


def export(
    config: TrainConfig, network: NetworkConfig, result: TrainResult, dataset: Dataset,
    directory: Path, seed: int, *, params: Any,
) -> dict[str, Metric]:  # fmt: skip
    """Writes the plain network with the given parameters to the folder of the seed."""
    state = dataclasses.replace(result.state, params=params, ema={})
    return export_network(
        config, dataclasses.replace(result, state=state), dataset.num_classes, directory, seed,
        overrides=network.overrides(),
    )  # fmt: skip
