"""Region proposal network: scores of anchors, and the selection of proposals [ren2015]."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from adaptive_nets.detection.boxes import clip, decode
from adaptive_nets.detection.settings import ProposalSettings
from adaptive_nets.detection.suppression import nms
from adaptive_nets.layers.conv_norm import conv

_INIT = initializers.normal(0.01)


class Proposals(NamedTuple):
    """Proposals of one image, by decreasing score.

    Attributes:
        boxes: float32[P, 4]; 0 in empty slots.
        valid: bool[P], False in empty slots.
    """

    boxes: Float[Array, "P 4"]
    valid: Bool[Array, " P"]


class ProposalHead(nn.Module):
    """Convolution 3x3 with ReLU, then a logit and four regression targets for each anchor.

    Attributes:
        channels: width of the 3x3 convolution.
        anchors_per_position: A.
        stride: stride of the 3x3 convolution.
    """

    channels: int
    anchors_per_position: int
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "N H W C"]
    ) -> tuple[Float[Array, "N M"], Float[Array, "N M 4"], tuple[int, int]]:
        """Computes logits float32[N, M], deltas float32[N, M, 4] and (H', W'); M = H'·W'·A."""
        options = {"use_bias": True, "kernel_init": _INIT}
        strides = (self.stride, self.stride)
        x = x.astype(jnp.float32)
        x = nn.relu(conv(self.channels, (3, 3), strides=strides, name="conv", **options)(x))
        logits = conv(self.anchors_per_position, (1, 1), name="objectness", **options)(x)
        deltas = conv(4 * self.anchors_per_position, (1, 1), name="deltas", **options)(x)
        count, height, width, _ = x.shape
        anchors = height * width * self.anchors_per_position
        return (
            logits.reshape(count, anchors),
            deltas.reshape(count, anchors, 4),
            (height, width),
        )


def propose(
    logits: Float[Array, " M"],
    deltas: Float[Array, "M 4"],
    anchors: Float[Array, "M 4"],
    inside: Bool[Array, " M"],
    size: Int[Array, "2"],
    settings: ProposalSettings,
) -> Proposals:
    """Selects the proposals of one image: best anchors, decoded, clipped and suppressed.

    Args:
        logits: float[M].
        deltas: float[M, 4].
        anchors: float[M, 4].
        inside: bool[M], False for anchors in padding, which become no proposals.
        size: (height, width) of the image without padding.
        settings: numbers and thresholds.

    Returns:
        Boxes inside the image, without gradients.
    """
    logits, deltas = lax.stop_gradient((logits, deltas))
    scores = jnp.where(inside, logits, -jnp.inf)
    scores, best = lax.top_k(scores, min(settings.candidates, scores.shape[0]))
    boxes = clip(decode(deltas[best], anchors[best]), size)
    is_large = jnp.all(boxes[:, 2:] - boxes[:, :2] >= settings.least_side, axis=1)
    scores = jnp.where(is_large, scores, -jnp.inf)
    kept = nms(boxes, scores, iou_threshold=settings.nms_iou, limit=settings.proposals)
    return Proposals(jnp.where(kept.valid[:, None], boxes[kept.indices], 0.0), kept.valid)
