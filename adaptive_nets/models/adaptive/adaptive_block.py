"""Block of adaptive depth around any residual units: ACT, SACT or probabilistic ACT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adaptive_nets.halting import mask_residual, shift_logits
from adaptive_nets.layers.halting_head import BIAS, HaltingHead
from adaptive_nets.layers.training_mode import call_in_mode
from adaptive_nets.models.adaptive.blocks import (
    Halting,
    Mode,
    Rule,
    Unit,
    run_act_block,
    run_probabilistic_block,
)
from adaptive_nets.models.adaptive.budget_options import Shift
from adaptive_nets.models.adaptive.network import STREAM, Execution, check_execution
from adaptive_nets.models.adaptive.unit_costs import UnitCost, as_unit_costs, units_flops
from adaptive_nets.models.adaptive.weights import check_halting_rule, head_name
from adaptive_nets.models.output import BlockTrace
from adaptive_nets.runtime.errors import UserError, did_you_mean


@flax.struct.dataclass
class AdaptiveBlockOutput:
    """Output of an `AdaptiveBlock`.

    Attributes:
        state: float[N, H, W, C], output of the block.
        trace: halting decisions and their costs, as of the networks of the zoo.
        flops: float32[N], FLOPs of each image, halting heads included; None without `unit_costs`.
    """

    state: Float[Array, "N H W C"]
    trace: BlockTrace
    flops: Float[Array, "N"] | None = None

    @property
    def ponder_cost(self) -> Float[Array, "N *V"]:
        """Returns the argument of the ponder penalty, see `BlockTrace`."""
        return self.trace.ponder_cost

    @property
    def num_units(self) -> Int[Array, "N *V"]:
        """Returns the number of units that ran: per image (ACT), position or group."""
        return self.trace.num_units


class AdaptiveBlock(nn.Module):
    """Residual units, of any library or one's own, that run as far as an image needs them.

        block = AdaptiveBlock([MyUnit(32) for _ in range(6)], "sact")
        output = block(x, train)
        loss = task_loss + tau * output.ponder_cost.mean()

    Each unit but the last has a `HaltingHead`. A unit is a linen module, or a function, from
    float[N, H, W, C] to the same shape; only the first one may change the shape. The training mode
    is passed under the name that the unit has for it (train, training, is_training, or negated
    deterministic, use_running_average). Where a unit does not run, its input is copied.

    The rule "pact" trains relaxed and is evaluated thresholded by default, see `mode`; relaxed and
    discrete calls need the random stream ``halting``.

    Attributes:
        units: L ≥ 1 units.
        halting: "act" decides per image, "sact" per position, "pact" reads heads as probabilities;
            or a `Halting`, for its options.
        unit_costs: FLOPs of each unit, of one image, for `AdaptiveBlockOutput.flops`: numbers, or
            the result of `adaptive_nets.analysis.unit_costs`.
        head_bias: initial bias of the halting logits.
        execution: "dense" computes every unit and masks its residual. "skipping" leaves out a unit
            that no image of the batch needs, for inference. It cannot leave out single images or
            positions: the module of a unit computes whole batches and maps. The networks of the zoo
            can, see `AdaptiveNetwork`.
    """

    units: Sequence[Callable[..., Array]]
    halting: Halting | Rule = "sact"
    unit_costs: Sequence[UnitCost | int] | None = None
    head_bias: float = BIAS
    execution: Execution = "dense"

    def __post_init__(self) -> None:
        # With lists the module would have no hash, which `jax.jit(block.apply)` needs.
        self.units = tuple(self.units)
        self.unit_costs = None if self.unit_costs is None else tuple(self.unit_costs)
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
        execution: Execution | None = None,
        halting_shift: Shift | None = None,
    ) -> AdaptiveBlockOutput:
        """Runs the block.

        Args:
            x: float[N, H, W, C].
            train: whether the call is a training step.
            mode: for "pact", "relaxed", "discrete" or "thresholded"; if None, relaxed if `train`,
                else thresholded.
            temperature: λ of relaxed indicators; if None, that of `halting`.
            execution: "dense" or "skipping"; if None, the attribute.
            halting_shift: shift of all halting logits, a number or float[N]; see
                `adaptive_nets.halting.budget`.

        Raises:
            UserError: a unit other than the first changes the shape, there is no unit, mode or
                execution is unknown or not supported, a random stream is missing, or `unit_costs`
                are not one per unit.
        """
        halting = _as_halting(self.halting)
        if not self.units:
            raise UserError("units is empty; expected at least one unit")
        costs = None
        if self.unit_costs is not None:
            costs = as_unit_costs(self.unit_costs, len(self.units))
        mode = halting.mode(mode, train=train and not self.is_initializing())
        execution = self.execution if execution is None else execution
        skipping = self._skips(execution, train, mode)
        if mode in ("relaxed", "discrete") and not self.has_rng(STREAM):
            raise UserError(
                f"mode is {mode!r}, which draws random numbers; expected rngs={{'halting': key}}"
            )
        params = self.variables.get("params", {})
        check_halting_rule(params, halting.rule, source="variables of the block")
        heads = [
            HaltingHead(
                spatial=halting.rule != "act",
                norm=halting.head_norm,
                bias=self.head_bias,
                name=head_name(f"unit_{i}", halting.rule),
            )
            for i in range(len(self.units) - 1)
        ]
        units = [self._unit(i, train, skipping) for i in range(len(self.units))]
        logits = [
            lambda x, head=head: shift_logits(head(x, train), halting_shift) for head in heads
        ]
        if mode is None:
            state, trace = run_act_block(
                units, logits, x, per_image=halting.rule == "act", eps=halting.eps
            )
        else:
            state, trace = run_probabilistic_block(
                units,
                logits,
                x,
                mode=mode,
                groups=halting.groups,
                temperature=halting.temperature if temperature is None else temperature,
                next_key=lambda: self.make_rng(STREAM),
            )
        flops = None
        if costs is not None:
            flops = units_flops(trace, costs, rule=halting.rule, channels=state.shape[-1])
        return AdaptiveBlockOutput(state, trace, flops)

    @nn.nowrap
    def _skips(self, execution: Execution, train: bool, mode: Mode | None) -> bool:
        check_execution(execution)
        if execution == "dense" or self.is_initializing():
            return False
        if train or mode == "relaxed":
            given = "train is True" if train else "mode is 'relaxed', which runs every unit"
            raise UserError(f"execution is 'skipping' and {given}; expected execution='dense'")
        return True

    @nn.nowrap
    def _unit(self, index: int, train: bool, skipping: bool) -> Unit:
        """Returns unit `index` as a function (x, mask) that copies x where the mask is 0."""
        unit: Any = self.units[index]

        def run(module: Any, x: Array) -> Array:
            y = call_in_mode(module, x, train)
            if index and jnp.shape(y) != x.shape:
                raise UserError(
                    f"units[{index}] ({_name(unit)}) changes the shape from {list(x.shape)} to "
                    f"{list(jnp.shape(y))}; expected the same shape: only units[0] of a block may "
                    "change it, so start another block with this unit"
                )
            if jnp.ndim(y) != 4:
                raise UserError(
                    f"units[{index}] ({_name(unit)}) returns shape {list(jnp.shape(y))}; expected "
                    "[N, H, W, C]"
                )
            return y

        def masked(x: Array, mask: Array | None) -> Array:
            if mask is None:
                return run(unit, x)
            if skipping and isinstance(unit, nn.Module):
                y = nn.cond(
                    jnp.any(mask), lambda m, x: run(m, x).astype(x.dtype), lambda m, x: x, unit, x
                )
            else:
                y = run(unit, x)
            if mask.dtype == jnp.bool_:
                return jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, 4))), y, x)
            return x + mask_residual(y - x, mask)

        return masked


def _as_halting(halting: Halting | str) -> Halting:
    if isinstance(halting, Halting):
        return halting
    if halting not in get_args(Rule):
        hint = did_you_mean(str(halting), get_args(Rule))
        raise UserError(f"halting is {halting!r}; expected act, sact, pact or a Halting; {hint}")
    return Halting(halting)  # pyright: ignore[reportArgumentType]


def _name(unit: Any) -> str:
    return type(unit).__name__ if isinstance(unit, nn.Module) else getattr(unit, "__name__", "unit")
