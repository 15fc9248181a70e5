"""What a perforated network takes: multiply-accumulates and bytes of activations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from adaptive_nets.perforation.layers import ConvLayer
from adaptive_nets.perforation.plan import PerforationPlan


def plan_macs(layers: Sequence[ConvLayer], plan: PerforationPlan | None = None) -> int:
    """Multiply-accumulates of the convolutions for one image, N·d²·S·T in a perforated one.

    A 1x1 convolution behind a perforated one is computed at its positions only, as in the authors'
    code. With explicit interpolation it would not be.

    Args:
        layers: all convolutions of the network.
        plan: None for the network itself.
    """
    masks = {} if plan is None else plan.layers
    computed: dict[str, int] = {}
    total = 0
    for layer in layers:
        mask = masks.get(layer.name)
        # A mask that keeps everything leaves the layer as it is, and so what it follows.
        if mask is not None and not mask.mask.all():
            kept = mask.kept
        else:
            kept = computed.get(layer.follows, layer.positions)
        computed[layer.name] = kept
        total += layer.macs // layer.positions * kept
    return total


@dataclasses.dataclass(frozen=True)
class ActivationBytes:
    """Bytes of activations of one image.

    Attributes:
        stored: sum over all layers' outputs, the input included. In units of 2**20 bytes, and with
            the dropout layers that we do not have at test, it is what the paper gives as memory:
            5.11, 6.55 and 109.96 for nin_cifar10, caffenet and vgg16 beside 5.1, 6.6 and 110.
        peak: the largest sum of those that are needed at one time, none overwritten in place.
    """

    stored: int
    peak: int


def activation_bytes(
    model: nn.Module,
    variables: Any,
    image_shape: tuple[int, int, int],
    plan: PerforationPlan | None = None,
) -> ActivationBytes:
    """Bytes of a network's activations for one image, compact where a plan keeps them so.

    Args:
        model: the network.
        variables: its variables or their shapes.
        image_shape: (H, W, C).
        plan: None for the network itself.
    """
    from adaptive_nets.perforation.memory import measure_activations

    return ActivationBytes(*measure_activations(model, variables, image_shape, plan))
