"""Networks and tasks of the experiments, from their configurations."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.kernel_init import HE_FAN_IN
from adaptive_nets.models import create_model
from adaptive_nets.models.nin import NetworkInNetwork
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.task import Task
from experiments.papers.zoo.digits import distort, padded
from experiments.papers.zoo.fields import (
    DigitsTrainConfig,
    ImageConfig,
    NinOptions,
    NinTrainConfig,
)
from experiments.suite import config as config_lib


class DenseHead(nn.Module):
    """Network in network whose last maps feed a dense layer instead of being averaged.

    Attributes:
        trunk: the network whose last maps are read.
        dropout_rate: dropout rate of the maps in training (stream ``dropout``).
    """

    trunk: NetworkInNetwork
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images."""
        last, found = last_layer(self.trunk), []

        def keep(call: Any, arguments: Any, options: Any, context: Any) -> Any:
            output = call(*arguments, **options)
            if context.module.name == last:
                found.append(output)
            return output

        # The trunk returns averages only; its last layer is intercepted instead of built again.
        with nn.intercept_methods(keep):
            self.trunk(x, train)
        maps = nn.relu(found[-1])
        maps = maps.reshape(maps.shape[0], -1)
        maps = nn.Dropout(self.dropout_rate)(maps, deterministic=not train)
        return nn.Dense(self.trunk.num_classes, dtype=self.trunk.dtype, name="fc")(maps)


def last_layer(network: NetworkInNetwork) -> str:
    """Returns the name of the last 1x1 convolution of a network in network."""
    # The last unit lists its widths without the number of classes.
    return f"cccp{sum(len(widths) - 1 for _, widths in network.units) + 1}"


def nin(name: str, options: NinOptions, **overrides: Any) -> nn.Module:
    """Builds a network in network with the head and the width of the options.

    Args:
        name: name of a network in network of the zoo.
        options: head, width and regularisation.
        **overrides: options of `create_model`.
    """
    network: Any = create_model(
        name, dropout_rate=options.dropout_rate, kernel_init=HE_FAN_IN, active_outputs=True,
        **overrides,
    )  # fmt: skip
    if options.width != 1:
        units = tuple(
            (size, tuple(max(1, round(options.width * width)) for width in widths))
            for size, widths in network.units
        )
        network = network.clone(units=units)
    return DenseHead(network, options.head_dropout) if options.head == "dense" else network


def overrides_of(config: ImageConfig) -> dict[str, Any]:
    """Returns the options of `create_model` that rebuild the network of a configuration."""
    if isinstance(config, NinTrainConfig):
        return {"dropout_rate": config.network.dropout_rate}
    if config_lib.training(config).model.name == "inception_v3":
        # Its auxiliary classifier needs photographs of 299 pixels; ours have 224.
        return {"auxiliary_heads": False}
    network = getattr(config, "network", None)
    return network.overrides() if network is not None else {}


def is_of_zoo(config: ImageConfig) -> bool:
    """Returns whether `create_model` builds the network of a configuration."""
    if not isinstance(config, NinTrainConfig):
        return True
    return config.network.head == "average" and config.network.width == 1


def image_task(config: ImageConfig, num_classes: int) -> Task:
    """Builds the task of a network of images.

    Args:
        config: configuration of the experiment.
        num_classes: number of classes of the data set.
    """
    values = config_lib.training(config)
    options: dict[str, Any] = {
        "num_classes": num_classes,
        "dtype": jnp.dtype(values.model.dtype),
    }
    others: dict[str, Any] = {}
    name = values.model.name
    if isinstance(config, NinTrainConfig):
        model = nin(name, config.network, **options)
    else:
        model = create_model(name, **options, **overrides_of(config))
    if isinstance(config, DigitsTrainConfig):
        others["prepare"] = padded(config.images.padding)
        if config.images.distortion:
            others["augment"] = distort
    return classification_task(
        model,
        label_smoothing=values.optimiser.label_smoothing,
        top5=values.data.name == "imagenet",
        **others,
    )
