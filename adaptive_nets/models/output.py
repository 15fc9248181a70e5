"""What a model returns."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from adaptive_nets.halting import spread_groups


@flax.struct.dataclass
class BlockTrace:
    """What halting did in one block of L units.

    The axes V are those of the block's decisions: none where an image is decided on as a whole,
    (H, W) where every position is, (G1, G2) where groups of positions are. The cost per position of
    any of them is the mean over V.

    Attributes:
        ponder_cost: float32[N, *V], what the penalty averages: ρ = N + R of scores that are added
            up, E[z] of probabilities of stopping.
        num_units: int32[N, *V], units that count: N, or z; L where all run, in relaxed blocks.
        halting_logits: float32[N, *V, L], the heads' outputs; there is no last head, its place is
            0 and not to be read.
        halting_probs: float32[N, *V, L], σ of them; the last is 1.
        weights: float32[N, *V, L], each unit's share in the block's output; they sum to 1.
        log_prob: float32[N], log q(z) of what was sampled, over all decisions of the image; 0
            where nothing was sampled from discrete variables.
        map_size: (H, W) of the block.
    """

    ponder_cost: Float[Array, "N *V"]
    num_units: Int32[Array, "N *V"]
    halting_logits: Float[Array, "N *V L"]
    halting_probs: Float[Array, "N *V L"]
    weights: Float[Array, "N *V L"]
    log_prob: Float[Array, "N"]
    map_size: tuple[int, int] = flax.struct.field(pytree_node=False)

    def broadcast_to_map(self, values: Array) -> Array:
        """Values [N, *V] of the decisions as a map [N, H, W] of positions."""
        if values.ndim == 1:
            values = values[:, None, None]
        return spread_groups(values, self.map_size)


@flax.struct.dataclass
class ModelOutput:
    """What a network returns that has more to say than logits.

    That is one with auxiliary classifiers, in training, and one of adaptive depth, always.

    Attributes:
        logits: float[N, K].
        auxiliary_logits: float[N, K] of every auxiliary classifier, from the input onwards.
        blocks: what halting did in every block, from the input onwards.
    """

    logits: Float[Array, "N K"]
    auxiliary_logits: tuple[Float[Array, "N K"], ...] = ()
    blocks: tuple[BlockTrace, ...] = ()


def logits_of(output: Any) -> Float[Array, "N K"]:
    """Logits of a model's output: the output itself, or its ``logits`` where there is more."""
    return getattr(output, "logits", output)


def auxiliary_logits_of(output: Any) -> tuple[Float[Array, "N K"], ...]:
    """Logits of the auxiliary classifiers; none where there are none."""
    return getattr(output, "auxiliary_logits", ())


def blocks_of(output: Any) -> tuple[BlockTrace, ...]:
    """What halting did in a network of adaptive depth; nothing for another one."""
    return getattr(output, "blocks", ())


def ponder_map(output: ModelOutput, image_size: tuple[int, int]) -> Float[Array, "N H W"]:
    """Ponder cost of every pixel: the sum over blocks of their costs, nearest upsampled.

    Args:
        output: of a network of adaptive depth.
        image_size: (H, W) of the images, not smaller than any block's map.

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
