"""Residual networks of the zoo, split into stages of the whole image and a stage of each region.

All stages but the last run once per image and share their map; the last one, the network's own
final layers and its linear layer run for every region: the split of [he2015] and [figurnov2017],
blocks 1 to 3 and block 4 of an ImageNet network. Networks for 32x32 images have three blocks; they
are split alike, after the second, at stride 2. Their last block doubles the stride and the width,
so it costs a region as much as one of 14x14 positions at stride 2, and the weights keep the scale
that they were trained at. The region proposal network can stride over the fine map, see
`ProposalSettings.stride`.

The network itself is unchanged: its variables have the names and shapes of the zoo, so trained
weights load as they are, and so do its forms of adaptive depth and their skipping form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float

from adaptive_nets.models import BlockTrace
from adaptive_nets.models.adaptive.blocks import Head, Unit, run_act_block
from adaptive_nets.models.adaptive.network import FOLDED, Execution
from adaptive_nets.models.adaptive.residual import AdaptiveResidualNetwork
from adaptive_nets.models.adaptive.weights import check_halting_rule
from adaptive_nets.models.stages import run_sequentially
from adaptive_nets.runtime.errors import UserError

Cut = Callable[[Array], Array]
"""Shared map float[N, H, W, C] -> maps of the regions float[N·R, h, w, C]."""


class BackboneRun(NamedTuple):
    """Result of a backbone.

    Attributes:
        outputs: float[N·R, K], outputs of the linear layer for every region.
        blocks: halting traces; empty for a network of fixed depth.
        map_sizes: (H, W) of the map of every block; the last is of a region.
    """

    outputs: Float[Array, "M K"]
    blocks: tuple[BlockTrace, ...]
    map_sizes: tuple[tuple[int, int], ...]


def check_backbone(name: str, network: nn.Module) -> None:
    """Checks that a network can be split.

    Args:
        name: its name, for the message.
        network: network of the zoo.

    Raises:
        UserError: it is no residual network with stages, or halts by another rule than ACT or SACT.
    """
    rule = getattr(getattr(network, "halting", None), "rule", None)
    adaptive = isinstance(network, AdaptiveResidualNetwork)
    staged = hasattr(network, "logits") and hasattr(network, "stage_sizes")
    if not staged or (rule is not None and not adaptive):
        raise UserError(
            f"backbone is {name!r}; expected a residual network with stages, such as "
            "'resnetv2_101', 'resnet101_sact' or 'resnet32_cifar10'"
        )
    if rule not in (None, "act", "sact"):
        raise UserError(
            f"backbone is {name!r}, which halts by the rule {rule!r}; expected a network of fixed "
            "depth, or one that halts by 'act' or 'sact'"
        )


def run_backbone(
    network: Any, x: Float[Array, "N H W C"], cut: Cut, *, train: bool, execution: Execution
) -> BackboneRun:
    """Runs a network of the zoo with its last stage on regions.

    Args:
        network: bound linen module, see `check_backbone`.
        x: float[N, H, W, C], normalised images, 0 in the padding.
        cut: cuts the regions out of the map before the last stage.
        train: whether to normalise by the statistics of the batch.
        execution: form of a network of adaptive depth, "dense" or "skipping".

    Raises:
        UserError: the variables do not fit the execution.
    """
    last = len(network.stage_sizes) - 1
    map_sizes: list[tuple[int, int]] = []
    blocks: list[BlockTrace] = []

    def enter(x: Array) -> Array:
        return cut(x) if len(map_sizes) == last else x

    def leave(x: Array) -> Array:
        map_sizes.append((x.shape[1], x.shape[2]))
        return x

    if not isinstance(network, AdaptiveResidualNetwork):

        def run_stage(units: Sequence[nn.Module], x: Array, train: bool) -> Array:
            return leave(run_sequentially(units, enter(x), train))

        outputs = network.logits(x, train, run_stage)
        return BackboneRun(outputs, (), tuple(map_sizes))

    halting, variables = network.halting, network.variables
    skipping = execution == "skipping" and not network.is_initializing()
    check_halting_rule(variables.get("params", {}), halting.rule, source="variables")
    if skipping and FOLDED not in variables:
        variables = network.fold(variables)
    elif not skipping and FOLDED in variables:
        raise UserError(
            "variables are folded for execution='skipping'; execution='dense' expects the original "
            "variables, which `fold` takes"
        )

    def run_block(units: Sequence[Unit], heads: Sequence[Head], x: Array) -> Array:
        x = enter(x)
        if skipping:
            weights = variables[FOLDED].get(f"block_{len(blocks)}")
            x, trace = network.skipping_block().run(units[0](x, None), weights, None)
        else:
            per_image = halting.rule == "act"
            x, trace = run_act_block(units, heads, x, per_image=per_image, eps=halting.eps)
        blocks.append(trace)
        return leave(x)

    outputs = network.forward(x, train, run_block)
    return BackboneRun(outputs, tuple(blocks), tuple(map_sizes))
