"""Outputs of models: logits, and the full output on request.

``model.apply(variables, x)`` returns logits float[N, K] for every network, in training too. A
network that computes more has a method `full_output`, with the arguments of a call, that returns a
`ModelOutput`:

    output = model.apply(variables, x, method="full_output")

The function `full_output` does this for any network.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from adaptive_nets.halting import spread_groups


@flax.struct.dataclass
class BlockTrace:
    """Halting decisions and their costs in one block of L units.

    V are the axes of the block's decisions: none for one decision per image, (H, W) for one per
    position, (G1, G2) for one per group of positions. The cost per position is the mean over V.

    Attributes:
        ponder_cost: float32[N, *V], argument of the ponder penalty: ρ = N + R for cumulative
            halting scores, E[z] for stopping probabilities. In discrete blocks it is an unbiased
            estimate of E[z] from the units that ran, see `adaptive_nets.halting.reinforce`.
        num_units: int32[N, *V], executed units: N or z; L in relaxed blocks, which run all units.
        halting_logits: float32[N, *V, L], outputs of the halting heads. The last unit has no head;
            its entry is 0 and undefined.
        halting_probs: float32[N, *V, L], sigmoid of the logits; the last is 1.
        weights: float32[N, *V, L], weight of each unit in the block's output; they sum to 1.
        log_prob: float32[N], log q(z) of the sampled decisions, summed over the image; 0 if no
            discrete variable was sampled.
        map_size: (H, W) of the block's maps.
    """

    ponder_cost: Float[Array, "N *V"]
    num_units: Int32[Array, "N *V"]
    halting_logits: Float[Array, "N *V L"]
    halting_probs: Float[Array, "N *V L"]
    weights: Float[Array, "N *V L"]
    log_prob: Float[Array, "N"]
    map_size: tuple[int, int] = flax.struct.field(pytree_node=False)

    def broadcast_to_map(self, values: Array) -> Array:
        """Broadcasts values [N, *V] of the decisions to a map [N, H, W] of positions."""
        if values.ndim == 1:
            values = values[:, None, None]
        return spread_groups(values, self.map_size)


@flax.struct.dataclass
class ModelOutput:
    """Full output of a network: logits, auxiliary logits and halting traces.

    Attributes:
        logits: float[N, K].
        auxiliary_logits: float[N, K] of every auxiliary classifier, in order of depth; they exist
            in training only.
        blocks: halting trace of every block of a network of adaptive depth, in order of depth.
        penalty_factors: float32[N], factor of τ in the penalty on computation of each image; None
            for the same τ everywhere.
    """

    logits: Float[Array, "N K"]
    auxiliary_logits: tuple[Float[Array, "N K"], ...] = ()
    blocks: tuple[BlockTrace, ...] = ()
    penalty_factors: Float[Array, "N"] | None = None


def full_output_method(model: Any) -> dict[str, str]:
    """Returns the option of `apply` that requests the full output; empty if there are only logits.

    Args:
        model: linen module, or a wrapper that has one as ``model`` and passes options on to it.
    """
    for network in (model, getattr(model, "model", None)):
        if hasattr(network, "full_output"):
            return {"method": "full_output"}
    return {}


def full_output(model: Any, variables: Any, x: Any, *args: Any, **options: Any) -> Any:
    """Applies any network and returns its full output.

    Args:
        model: network of the zoo.
        variables: variables of the network.
        x: float[N, H, W, C].
        *args: further arguments of ``model.apply``.
        **options: further arguments of ``model.apply``, such as ``train`` or ``mode``.

    Returns:
        `ModelOutput`; with ``mutable``, that and the changed collections.
    """
    method = full_output_method(model)
    result = model.apply(variables, x, *args, **method, **options)
    if method:
        return result
    if options.get("mutable", False) is not False:
        logits, changed = result
        return ModelOutput(logits), changed
    return ModelOutput(result)


def logits_of(output: Any) -> Float[Array, "N K"]:
    """Returns the logits of a full output, or of a network of other libraries' conventions.

    Args:
        output: logits, or an object with ``logits``.
    """
    return getattr(output, "logits", output)


def auxiliary_logits_of(output: Any) -> tuple[Float[Array, "N K"], ...]:
    """Returns the logits of the auxiliary classifiers; empty without such classifiers."""
    return getattr(output, "auxiliary_logits", ())


def blocks_of(output: Any) -> tuple[BlockTrace, ...]:
    """Returns the halting traces of a network of adaptive depth; empty for other networks."""
    return getattr(output, "blocks", ())


def penalty_factors_of(output: Any) -> Float[Array, "N"] | None:
    """Returns the factors of τ of the images; None if there are none."""
    return getattr(output, "penalty_factors", None)


def ponder_map(output: ModelOutput, image_size: tuple[int, int]) -> Float[Array, "N H W"]:
    """Computes the ponder cost of every pixel: the sum of all blocks' upsampled cost maps.

    Args:
        output: output of a network of adaptive depth.
        image_size: (H, W) of the images, at least the size of every block's map.

    Returns:
        float32[N, H, W].
    """
    total = jnp.zeros((output.logits.shape[0], *image_size), jnp.float32)
    for block in output.blocks:
        rows, columns = (
            jnp.arange(size) * part // size
            for size, part in zip(image_size, block.map_size, strict=True)
        )
        total += block.broadcast_to_map(block.ponder_cost)[:, rows][:, :, columns]
    return total
