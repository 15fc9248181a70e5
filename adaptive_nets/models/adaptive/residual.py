"""Base class of residual networks of adaptive depth.

A subclass also inherits from its plain network, whose ``logits(x, train, run_stage)`` builds the
stages. Shared layers have the scopes of the plain network, so that its weights initialise the
adaptive one. Each unit but the last of a stage has a head. Its scope ends in the name of the rule,
since heads of different rules have equal shapes but are not interchangeable.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import flax.linen as nn
from jaxtyping import Array, Float

from adaptive_nets.halting import conv_flops
from adaptive_nets.layers.halting_head import HaltingHead
from adaptive_nets.models.adaptive.blocks import Mode
from adaptive_nets.models.adaptive.cost import BlockCost, head_flops
from adaptive_nets.models.adaptive.folded_weights import fold_head, stack_block
from adaptive_nets.models.adaptive.network import FOLDED, AdaptiveNetwork, RunBlock
from adaptive_nets.models.adaptive.skipping_block import SkippingBlock
from adaptive_nets.models.adaptive.units import MapSize, UnitForm, variables_of
from adaptive_nets.models.adaptive.weights import check_halting_rule, head_name
from adaptive_nets.models.stages import RunStage
from adaptive_nets.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class HeadOptions:
    """Options of a network's halting heads; see `HaltingHead`."""

    slope: float | None = None
    epsilon: float = 1e-5
    momentum: float = 0.9


class AdaptiveResidualNetwork(AdaptiveNetwork, kw_only=True):
    """Base class of residual networks whose stages halt.

    A subclass sets `unit_name`, may replace `head_options`, and supplies `units` and `stem_flops`.

    Attributes:
        unit_name: (stage, number of the unit), both from 0 -> scope of the unit.
    """

    unit_name: ClassVar[Callable[[int, int], str]]

    if TYPE_CHECKING:  # of the plain network
        stage_sizes: tuple[int, ...]
        num_classes: int
        widths: tuple[int, ...]
        dtype: Any

        def logits(self, x: Array, train: bool, run_stage: RunStage) -> Array:
            """Runs the network with `run_stage` for each stage."""
            ...

    @property
    def units(self) -> UnitForm:
        """Form of the units."""
        raise NotImplementedError

    @property
    def head_options(self) -> HeadOptions:
        """Options of the halting heads."""
        return HeadOptions()

    @nn.nowrap
    def stem_flops(self, map_size: MapSize, image_size: MapSize | None) -> int:
        """Returns the FLOPs of the stem for one image.

        Args:
            map_size: (H, W) of the first stage's map.
            image_size: (H, W) of the image, if known.
        """
        raise NotImplementedError

    @nn.nowrap
    def forward(self, x: Array, train: bool, run_block: RunBlock) -> Float[Array, "N K"]:
        """See `AdaptiveNetwork`."""

        def run_stage(units: Sequence[nn.Module], x: Array, train: bool) -> Array:
            heads = [
                HaltingHead(
                    spatial=self.halting.rule != "act",
                    norm=self.halting.head_norm,
                    name=head_name(str(unit.name), self.halting.rule),
                    **dataclasses.asdict(self.head_options),
                )
                for unit in units[:-1]
            ]
            return run_block(
                [lambda x, mask, unit=unit: unit(x, train, mask=mask) for unit in units],
                [lambda x, head=head: head(x, train) for head in heads],
                x,
            )

        return self.logits(x, train, run_stage)

    @nn.nowrap
    def block_costs(
        self, map_sizes: Sequence[MapSize], image_size: MapSize | None
    ) -> tuple[BlockCost, ...]:
        """See `AdaptiveNetwork`."""
        del image_size
        if len(map_sizes) != len(self.stage_sizes):
            raise UserError(
                f"output has {len(map_sizes)} blocks; expected {len(self.stage_sizes)}, an output "
                "of this network"
            )
        costs, inputs = [], self.widths[0]
        before = map_sizes[0]  # the first stage does not stride
        for width, after in zip(self.widths, map_sizes, strict=True):
            channels = self.units.channels(width)
            first = self.units.first_unit_flops(inputs, width, before, after)
            head = head_flops(self.halting.rule, channels)
            costs.append(BlockCost(first, self.units.kernels(width), *head))
            inputs, before = channels, after
        return tuple(costs)

    @nn.nowrap
    def fixed_flops(self, map_sizes: Sequence[MapSize], image_size: MapSize | None) -> int:
        """See `AdaptiveNetwork`."""
        features = self.units.channels(self.widths[-1])
        classifier = int(conv_flops(1, (1, 1), features, self.num_classes))
        return self.stem_flops(map_sizes[0], image_size) + classifier

    @nn.nowrap
    def fold(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """See `AdaptiveNetwork`."""
        rule, heads = self.halting.rule, self.head_options
        check_halting_rule(variables["params"], rule, source="variables")
        folded, taken = {}, set()
        for stage, size in enumerate(self.stage_sizes):
            names = [self.unit_name(stage, i) for i in range(size)]
            later, headed = names[1:], [head_name(name, rule) for name in names[:-1]]
            if not later:
                continue
            folded[f"block_{stage}"] = stack_block(
                [self.units.fold(variables_of(variables, n), self.dtype) for n in later],
                [
                    fold_head(
                        variables_of(variables, name),
                        epsilon=heads.epsilon,
                        linear=heads.slope is None,
                    )
                    for name in headed
                ],
            )
            taken.update(later, headed)
        rest = {
            kind: {name: value for name, value in tree.items() if name not in taken}
            for kind, tree in variables.items()
        }
        return {**rest, FOLDED: folded}

    @nn.nowrap
    def skipping_block(self, mode: Mode | None = None) -> SkippingBlock:
        """See `AdaptiveNetwork`."""
        return SkippingBlock(self.halting, mode, self.units, self.head_options.slope)
