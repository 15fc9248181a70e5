"""Monte-Carlo dropout: predictions with sampled dropout masks at test time [gal2016]."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.layers.interception import apply_with

STREAM = "dropout"
MASKS = "dropout_masks"
"""Collection of a member with the key of its masks."""


class DropoutNetwork:
    """Network with dropout before chosen layers, with the `init` and `apply` of a linen module.

    The network itself is unchanged, so its weights fit both forms. Masks are drawn for each image
    in training, and in evaluation of variables with the collection `MASKS`; other evaluation is
    deterministic. On a CPU a batch is predicted in pieces, which have the same masks.

    Args:
        module: plain network.
        rate: probability that an input of the layer is set to 0.
        before: last parts of the paths of the layers; by default the second convolution of every
            residual unit, as in wide residual networks [zagoruyko2016].
    """

    def __init__(
        self, module: nn.Module, *, rate: float, before: tuple[str, ...] = ("conv2",)
    ):  # fmt: skip
        self.module, self.rate, self.before = module, rate, before

    def init(self, rngs: Any, x: Array, **options: Any) -> Any:
        """Initialises the plain network."""
        return self.module.init(rngs, x, **options)

    def apply(
        self, variables: Any, x: Array, *, train: bool = False, rngs: Any = None, **options: Any
    ) -> Any:
        """Applies the network, with masks in training or of a member."""
        plain = {name: tree for name, tree in variables.items() if name != MASKS}
        key = None
        if train:
            key = rngs[STREAM]
        elif MASKS in variables:
            key = jax.random.wrap_key_data(jnp.asarray(variables[MASKS]["key"]))
        if key is None or not self.rate:
            return self.module.apply(plain, x, train=train, rngs=rngs, **options)
        numbers = iter(range(2**31))

        def call(layer: nn.Module, path: str, original: Callable[..., Any], inputs: Array) -> Any:
            del layer
            if path.rpartition("/")[2] in self.before:
                part = jax.random.fold_in(key, next(numbers))
                inputs = drop(part, inputs, rate=self.rate)
            return original(inputs)

        return apply_with(self.module, call, plain, x, train=train, rngs=rngs, **options)


def drop(key: PRNGKeyArray, x: Array, *, rate: float) -> Array:
    """Sets entries to 0 with probability `rate` and divides the others by 1 − rate."""
    kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(kept, x / (1.0 - rate), 0.0)


@dataclasses.dataclass(frozen=True)
class DropoutPosterior:
    """One network with other masks for each member, an endless ensemble.

    Attributes:
        variables: variables of a network that was trained with dropout.
    """

    variables: Mapping[str, Any]

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Yields the variables with the key of masks; member i has ``fold_in(key, i)``."""
        number = first
        while True:
            data = jax.device_get(jax.random.key_data(jax.random.fold_in(key, number)))
            yield {**self.variables, MASKS: {"key": data}}
            number += 1
