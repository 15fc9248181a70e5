"""Losses of many perforations of one network without recompilation.

Masks are static in a perforated network, so each candidate of a search would need a compilation.
Here convolutions are dense and masks are run-time arrays: gathering a layer's output by its
nearest-kept map gives the values of the perforated network. A candidate that changes one layer
reuses that layer's cached dense output; the compiler eliminates the computation before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adaptive_nets.models import logits_of
from adaptive_nets.perforation.adapters import adapt_network, canonical_variables
from adaptive_nets.perforation.interpreter import Interpreter, trace
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy, is_error

Maps = Mapping[str, Int[np.ndarray, "H W"]]


def fill(y: Float[Array, "N H W O"], nearest: Int[Array, "H W"]) -> Float[Array, "N H W O"]:
    """Computes V̂(x, y, t) = V(ℓ(x, y), t) for a run-time map ℓ [figurnov2016, sec. 3]."""
    y, nearest = jnp.asarray(y), jnp.asarray(nearest)
    flat = y.reshape(y.shape[0], -1, y.shape[3])
    return flat.at[:, nearest.ravel()].get(mode="promise_in_bounds").reshape(y.shape)


def apply_filled(
    model: Any,
    variables: Any,
    images: Float[Array, "N H W C"],
    maps: Mapping[str, Array],
    given: Mapping[str, Array] | None = None,
) -> tuple[Float[Array, "N K"], dict[str, Array]]:
    """Computes the logits of a perforated network and the dense outputs of its perforated layers.

    Args:
        model: unperforated network.
        variables: variables of the network.
        images: float[N, H, W, C], preprocessed as input of the network.
        maps: layer name from `conv_layers` -> int[H', W'], flat index of the nearest kept position.
        given: layer -> cached dense output, used instead of computing the layer.

    Returns:
        Logits, and layer -> float[N, H', W', O] before filling.

    Raises:
        UserError: a layer does not exist.
    """
    dense: dict[str, Array] = {}

    def fill_output(name, output):
        if name not in maps:
            return output
        dense[name] = given[name] if given and name in given else output
        return fill(dense[name], maps[name])

    traced = trace(model, variables, images, train=False)
    logits = logits_of(Interpreter(traced, {}, tap=fill_output).run(traced.arguments))
    missing = [name for name in maps if name not in dense]
    if missing:
        raise UserError(f"the network has no layer {missing[0]!r}; expected names from conv_layers")
    return logits, dense


class FilledLoss:
    """Mean cross-entropy of a network on fixed images under run-time masks.

    Args:
        model: unperforated network.
        variables: variables of the network.
        sizes: layer -> (H', W') of its output, for every layer that may be perforated.
        images: float[N, H, W, C], preprocessed as input of the network.
        labels: int[N].
        batch_size: images per compiled step.

    Raises:
        UserError: there are no images, or the numbers of images and labels differ.
    """

    def __init__(
        self,
        model: Any,
        variables: Any,
        *,
        sizes: Mapping[str, tuple[int, int]],
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int = 128,
    ):
        if not len(images) or len(images) != len(labels):
            raise UserError(
                f"there are {len(images)} images and {len(labels)} labels; expected one label per "
                "image and at least one image"
            )
        self.count = len(images)
        variables = canonical_variables(adapt_network(model), variables)
        self._variables = jax.device_put(variables)
        self._unperforated = {
            name: np.arange(high * wide, dtype=np.int32).reshape(high, wide)
            for name, (high, wide) in sizes.items()
        }
        self._batches = _in_batches(images, labels, min(batch_size, self.count))

        def total(logits, batch):
            values = cross_entropy(logits, batch["label"]), is_error(logits, batch["label"])
            return jnp.stack([jnp.sum(value * batch["weight"]) for value in values])

        @jax.jit
        def whole(variables, batch, maps):
            logits, dense = apply_filled(model, variables, batch["image"], maps)
            return total(logits, batch), dense

        def from_layer(name):
            @jax.jit
            def rest(variables, batch, maps, output):
                given = {name: output}
                logits, _ = apply_filled(model, variables, batch["image"], maps, given)
                return total(logits, batch)

            return rest

        self._whole = whole
        self._from_layer = {name: from_layer(name) for name in sizes}

    @property
    def batches(self) -> int:
        """Returns the number of batches of one pass over the images."""
        return len(self._batches)

    def of(self, maps: Maps) -> float:
        """Computes the loss in nats with the given layers perforated and all others dense."""
        return self.candidate_losses(maps, ())[0]

    def candidate_losses(
        self,
        maps: Maps,
        candidates: Sequence[tuple[str, Int[np.ndarray, "H W"]]],
        *,
        after_batch: Callable[[], None] = lambda: None,
    ) -> list[float]:
        """Computes the loss of a perforated network and of variants with one layer changed.

        Args:
            maps: layer -> nearest-kept map of the perforated layers.
            candidates: (layer, replacement map) of each variant.
            after_batch: callback after each batch; an exception from it cancels the evaluation.

        Returns:
            Loss of `maps`, then the loss of each candidate, in nats.
        """
        return self.evaluate(maps, candidates, after_batch=after_batch)[:, 0].tolist()

    def evaluate(
        self,
        maps: Maps,
        candidates: Sequence[tuple[str, Int[np.ndarray, "H W"]]] = (),
        *,
        after_batch: Callable[[], None] = lambda: None,
    ) -> Float[np.ndarray, "C 2"]:
        """Computes loss in nats and error rate of `maps` and of each candidate.

        Arguments are those of `candidate_losses`; row 0 is `maps`.
        """
        current = {**self._unperforated, **{name: np.asarray(m) for name, m in maps.items()}}
        totals = np.zeros((1 + len(candidates), 2))
        for batch in self._batches:
            loss, dense = self._whole(self._variables, batch, current)
            losses = [loss]
            for layer, nearest in candidates:
                changed = {**current, layer: np.asarray(nearest)}
                run = self._from_layer[layer]
                losses.append(run(self._variables, batch, changed, dense[layer]))
            totals += np.array(jax.device_get(losses), np.float64)
            after_batch()
        return totals / self.count


def _in_batches(images: np.ndarray, labels: np.ndarray, size: int) -> list[dict[str, Array]]:
    """Splits images into device batches; the last one is padded with images of weight 0."""
    batches = []
    for start in range(0, len(images), size):
        chosen = np.arange(start, start + size)
        inside = np.minimum(chosen, len(images) - 1)
        batches.append(
            {
                "image": jnp.asarray(images[inside], jnp.float32),
                "label": jnp.asarray(labels[inside], jnp.int32),
                "weight": jnp.asarray(chosen < len(images), jnp.float32),
            }
        )
    return batches
