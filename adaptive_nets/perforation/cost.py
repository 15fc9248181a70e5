"""Cost of a perforated network: multiply-accumulates and activation memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from adaptive_nets.perforation.layers import ConvLayer
from adaptive_nets.perforation.plan import PerforationPlan


def plan_macs(layers: Sequence[ConvLayer], plan: PerforationPlan | None = None) -> int:
    """Counts multiply-accumulates of the convolutions for one image: N·d²·S·T if perforated.

    A 1x1 convolution after a perforated one is computed at the kept positions only, as in the
    authors' code. This assumes implicit interpolation.

    Args:
        layers: all convolutions of the network.
        plan: perforation plan; None for the unperforated network.
    """
    masks = {} if plan is None else plan.layers
    computed: dict[str, int] = {}
    total = 0
    for layer in layers:
        mask = masks.get(layer.name)
        # A mask that keeps every position leaves the layer unperforated.
        if mask is not None and not mask.mask.all():
            kept = mask.kept
        else:
            kept = computed.get(layer.follows, layer.positions)
        computed[layer.name] = kept
        total += layer.macs // layer.positions * kept
    return total


@dataclasses.dataclass(frozen=True)
class ActivationBytes:
    """Activation memory of one image in bytes.

    Attributes:
        stored: sum over the outputs of all layers and the input. In MiB, and with outputs of
            dropout layers added, which are absent at test here, it is the memory column of the
            paper: 5.11, 6.55 and 109.96 for nin_cifar10, caffenet and vgg16 beside the paper's
            5.1, 6.6 and 110.
        peak: largest sum of simultaneously live outputs, without in-place updates.
    """

    stored: int
    peak: int


def activation_bytes(
    model: Any,
    variables: Any,
    image_shape: tuple[int, int, int],
    plan: PerforationPlan | None = None,
) -> ActivationBytes:
    """Computes the activation memory of a network for one image.

    Args:
        model: the network.
        variables: its variables or their shapes.
        image_shape: (H, W, C).
        plan: perforation plan, under which maps are compact; None for the unperforated network.
    """
    from adaptive_nets.perforation.memory import measure_activations

    return ActivationBytes(*measure_activations(model, variables, image_shape, plan))
