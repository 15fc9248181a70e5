"""Base class of networks of adaptive depth, with one call for the dense and the skipping form.

A subclass of `AdaptiveNetwork` supplies stem, blocks and classifier (`forward`) and its cost
(`block_costs`, `fixed_flops`). If it can skip, it also supplies folded weights (`fold`) and the
skipping form of a block (`skipping_block`). Residual networks inherit most of this from
`adaptive_nets.models.adaptive.residual`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
from jaxtyping import Array, Float

from adaptive_nets.halting import BudgetCalibration, shift_logits
from adaptive_nets.models.adaptive.blocks import (
    Halting,
    Head,
    Mode,
    Unit,
    run_act_block,
    run_probabilistic_block,
)
from adaptive_nets.models.adaptive.budget_options import Shift, resolve_shift
from adaptive_nets.models.adaptive.cost import BlockCost
from adaptive_nets.models.adaptive.folded_weights import BlockWeights
from adaptive_nets.models.adaptive.skipping_block import SkippingBlock
from adaptive_nets.models.adaptive.units import MapSize
from adaptive_nets.models.adaptive.weights import check_halting_rule
from adaptive_nets.models.output import BlockTrace, ModelOutput
from adaptive_nets.runtime.errors import UserError, did_you_mean

Execution = Literal["dense", "skipping"]
RunBlock = Callable[[Sequence[Unit], Sequence[Head], Array], Array]
"""(units, heads of all units but the last, input of the block) -> its output."""

STREAM = "halting"
"""Random stream of relaxed and discrete indicators."""
FOLDED = "folded"
"""Collection of folded weights: {"block_<k>": `BlockWeights`}, for the skipping form."""


def check_execution(execution: Any) -> None:
    """Raises a `UserError` unless the execution is one of `Execution`."""
    if execution not in get_args(Execution):
        raise UserError(
            f"execution is {execution!r}; {did_you_mean(str(execution), get_args(Execution))}"
        )


class AdaptiveNetwork(nn.Module, kw_only=True):
    """Base class of networks whose blocks of units halt.

    Attributes:
        halting: halting rule of the blocks.
        execution: default form of a call. "dense" computes every unit at every position and masks
            residuals; it trains, and runs every mode. "skipping" computes a unit at active
            positions only and ends a block when all have halted; it is for inference with ACT,
            SACT, and thresholded or discrete probabilistic blocks. Outputs are equal up to
            rounding.
    """

    halting: Halting = Halting("sact")
    execution: Execution = "dense"

    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
        execution: Execution | None = None,
        budget: float | Float[Array, "*N"] | None = None,
        calibration: BudgetCalibration | None = None,
        halting_shift: Shift | None = None,
    ) -> Float[Array, "N K"]:
        """Computes the logits of a batch of images.

        `init` makes the same variables for either execution. The skipping form folds normalisations
        into weights in every call; `fold` does so once, outside of a loop:

            folded = model.fold(variables)
            logits = jax.jit(functools.partial(model.apply, execution="skipping"))(folded, images)

        Args, errors: see `full_output`, which also returns the trace of each block.

        Returns:
            float[N, K].
        """
        return self.full_output(
            x,
            train,
            mode=mode,
            temperature=temperature,
            execution=execution,
            budget=budget,
            calibration=calibration,
            halting_shift=halting_shift,
        ).logits

    def full_output(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
        execution: Execution | None = None,
        budget: float | Float[Array, "*N"] | None = None,
        calibration: BudgetCalibration | None = None,
        halting_shift: Shift | None = None,
    ) -> ModelOutput:
        """Computes the logits of a batch of images, and the trace of each block.

        Called as ``model.apply(variables, images, method="full_output")``.

        Args:
            x: float[N, H, W, C]; an empty batch gives an empty output.
            train: whether to normalise by the statistics of the batch.
            mode: mode of a probabilistic network: "relaxed", "discrete" or "thresholded"; if None,
                relaxed if `train`, else thresholded. All modes run the same parameters.
            temperature: λ of relaxed indicators, may be traced; if None, that of `halting`.
            execution: "dense" or "skipping"; if None, the attribute.
            budget: mean cost to meet, FLOPs per image or, up to 2, a share of the plain network's
                FLOPs; one number or float[N], one per image. A traced budget is clipped to the
                calibrated range.
            calibration: from `calibrate_budget`, required with a budget.
            halting_shift: shift of all halting logits, a number or float[N]; may be traced. Traces
                have the shifted logits.

        Returns:
            Logits and one trace per block. The skipping form does not evaluate the head of a unit
            that did not run: halting probabilities after `num_units` are 0, and the `ponder_cost`
            of a probabilistic block is the number of units that ran.

        Raises:
            UserError: mode or execution is unknown or not supported, a random stream is missing, or
                the budget is outside the calibrated range.
        """
        execution = self.execution if execution is None else execution
        check_execution(execution)
        skipping = execution == "skipping" and not self.is_initializing()
        if skipping and train:
            raise UserError(
                "execution is 'skipping' and train is True; expected execution='dense' in training"
            )
        mode = self.halting.mode(mode, train=train)
        if skipping and mode == "relaxed":
            raise UserError(
                "mode is 'relaxed', which runs every unit; execution='skipping' accepts "
                "'thresholded' and 'discrete'"
            )
        if mode in ("relaxed", "discrete") and not self.has_rng(STREAM):
            raise UserError(
                f"mode is {mode!r}, which draws random numbers; expected rngs={{'halting': key}}"
            )
        shift = resolve_shift(x, train, mode, budget, calibration, halting_shift)
        variables = self.variables
        check_halting_rule(variables.get("params", {}), self.halting.rule, source="variables")
        if skipping:
            run = _skipping_runner(self, variables, mode, shift)
        else:
            if FOLDED in variables:
                raise UserError(
                    "variables are folded for execution='skipping'; execution='dense' expects the "
                    "original variables, which `fold` takes"
                )
            run = _dense_runner(self, mode, temperature, shift)
        traces: list[BlockTrace] = []

        def run_block(units: Sequence[Unit], heads: Sequence[Head], x: Array) -> Array:
            x, trace = run(units, heads, x, len(traces))
            traces.append(trace)
            return x

        logits = self.forward(x, train, run_block)
        return ModelOutput(logits, blocks=tuple(traces))

    @nn.nowrap
    def forward(self, x: Array, train: bool, run_block: RunBlock) -> Float[Array, "N K"]:
        """Runs stem, blocks and classifier; calls `run_block` for each block, in order."""
        raise NotImplementedError

    @nn.nowrap
    def block_costs(
        self, map_sizes: Sequence[MapSize], image_size: MapSize | None
    ) -> tuple[BlockCost, ...]:
        """Returns the cost of each block; see `cost.CostedNetwork`."""
        raise NotImplementedError

    @nn.nowrap
    def fixed_flops(self, map_sizes: Sequence[MapSize], image_size: MapSize | None) -> int:
        """Returns the FLOPs of stem and classifier; see `cost.CostedNetwork`."""
        raise NotImplementedError

    @nn.nowrap
    def fold(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Folds the variables of a trained network for the skipping form.

        Args:
            variables: variables of the network.

        Returns:
            Variables for ``execution="skipping"``: the collection `FOLDED` of `BlockWeights`, and
            the other collections without the variables that were folded.

        Raises:
            UserError: the network has no skipping form, or the variables have heads of another
                rule.
        """
        raise UserError(f"{type(self).__name__} has no skipping form; expected execution='dense'")

    @nn.nowrap
    def skipping_block(self, mode: Mode | None = None) -> SkippingBlock:
        """Returns the skipping form of a block, which runs the units after the first one.

        Args:
            mode: "thresholded" or "discrete"; None for summed scores.

        Raises:
            UserError: the network has no skipping form.
        """
        raise UserError(f"{type(self).__name__} has no skipping form; expected execution='dense'")


_Runner = Callable[[Sequence[Unit], Sequence[Head], Array, int], tuple[Array, BlockTrace]]


def _dense_runner(
    network: AdaptiveNetwork, mode: Mode | None, temperature: Any, shift: Array | None
) -> _Runner:
    halting = network.halting

    def run(units, heads, x, block):
        del block
        heads = [lambda x, head=head: shift_logits(head(x), shift) for head in heads]
        if mode is None:
            per_image = halting.rule == "act"
            return run_act_block(units, heads, x, per_image=per_image, eps=halting.eps)
        return run_probabilistic_block(
            units,
            heads,
            x,
            mode=mode,
            groups=halting.groups,
            temperature=halting.temperature if temperature is None else temperature,
            next_key=lambda: network.make_rng(STREAM),
        )

    return run


def _skipping_runner(
    network: AdaptiveNetwork,
    variables: Mapping[str, Any],
    mode: Mode | None,
    shift: Array | None,
) -> _Runner:
    skipping = network.skipping_block(mode)
    if FOLDED not in variables:
        variables = network.fold(variables)

    def run(units, heads, x, block):
        # The dense form draws the same keys in the same order.
        keys = [network.make_rng(STREAM) for _ in heads] if mode == "discrete" else None
        x = units[0](x, None)
        weights: BlockWeights | None = variables[FOLDED].get(f"block_{block}")
        return skipping.run(x, weights, keys, shift)

    return run
