"""Many small networks trained at once: one program whose parameters are stacked along an axis.

Their initial parameters differ, their batches are the same. An elementwise optimiser, such as Adam
or SGD, then trains each as if it were alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.data.splits import WEIGHT
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy, is_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Task


class StackedNetworks:
    """Networks of one architecture, with the `init` and `apply` of a linen module.

    Every variable has a first axis of networks. The first convolution reads the same images in all
    of them, so that it is one wide convolution; the later ones are grouped convolutions.

    Args:
        module: network that returns logits and draws nothing at random.
        count: number of networks.

    Example:
        >>> import jax
        >>> from adaptive_nets import create_model
        >>> networks = StackedNetworks(create_model("lenet_300_100"), 3)
        >>> variables = networks.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
        >>> networks.apply(variables, jax.numpy.zeros((5, 28, 28, 1))).shape
        (3, 5, 10)
    """

    def __init__(self, module: nn.Module, count: int):
        if count < 1:
            raise UserError(f"count is {count}; expected at least one network")
        self.module, self.count = module, count

    def init(self, rngs: Any, x: Array, **options: Any) -> dict[str, Any]:
        """Initialises every network with another key."""
        key = rngs["params"] if isinstance(rngs, dict) else rngs
        keys = jax.random.split(key, self.count)
        return dict(jax.vmap(lambda key: self.module.init(key, x, **options))(keys))

    def apply(
        self, variables: Any, x: Float[Array, "N H W C"], **options: Any
    ) -> Float[Array, "M N K"]:
        """Applies every network to the same images."""
        options.pop("rngs", None)
        apply: Callable[..., Any] = self.module.apply
        return jax.vmap(lambda own: apply(own, x, **options))(variables)


def stacked_task(
    networks: StackedNetworks, *, penalty: Callable[[Any], Array] | None = None
) -> Task:
    """Builds the task of classifying images with every network; the loss is the sum of theirs.

    Args:
        networks: networks.
        penalty: parameters of one network -> scalar that is added to its mean cross-entropy, such
            as weight decay.
    """

    def objective(output: Array, batch: Batch, params: Any, step: Array):
        del step
        labels = _labels_of(output, batch)
        losses = cross_entropy(output, labels)
        loss = jnp.sum(jnp.mean(losses, axis=1))
        metrics = {"nll": Mean.of(losses), "error": Mean.of(is_error(output, labels))}
        if penalty is not None:
            added = jax.vmap(penalty)(params)
            loss += jnp.sum(added)
            metrics["penalty"] = Mean.of(added)
        return loss, metrics

    def measures(output: Array, batch: Batch) -> dict[str, Mean]:
        labels = _labels_of(output, batch)
        weight = jnp.broadcast_to(batch[WEIGHT][None], labels.shape)
        return {
            "nll": Mean.of(cross_entropy(output, labels), weight),
            "error": Mean.of(is_error(output, labels), weight),
        }

    return Task(model=networks, objective=lambda timing: objective, measures=measures)


def _labels_of(output: Array, batch: Batch) -> Array:
    return jnp.broadcast_to(batch["label"][None], output.shape[:2])
