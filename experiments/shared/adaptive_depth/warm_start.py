"""What a network of adaptive depth starts from, and how its price of depth grows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from adaptive_nets.models.adaptive.weights import init_from_plain
from adaptive_nets.models.weights.stored import load_network
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.depth import TauSchedule, set_head_bias
from adaptive_nets.training.duration import Timing
from adaptive_nets.variational import linear_warmup
from experiments.shared.adaptive_depth.configs import DepthConfig


def tau_schedule(halting: DepthConfig, timing: Timing) -> TauSchedule:
    """The price τ of a unit at each step, after its ramp.

    Args:
        halting: τ and the length of its ramp.
        timing: lengths of the run.
    """
    end = timing.steps(halting.tau_ramp)
    tau: Any = halting.tau
    return lambda step: tau * (linear_warmup(step, start=0, end=end) if end else 1.0)


def warm_start_fn(halting: DepthConfig) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Turns fresh variables into those that training starts from.

    The heads' bias is set; with ``start_from``, everything else is a trained plain network's.

    Raises:
        UserError: the file cannot be read, or is of a network of another form.
    """
    stored = load_network(Path(halting.start_from)) if halting.start_from else None

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        params = set_head_bias(params, halting.bias)
        if stored is None:
            return params, model_state
        try:
            variables = init_from_plain({"params": params, **model_state}, stored.variables)
        except UserError as error:
            raise UserError(f"--halting.start-from is {halting.start_from!r}: {error}") from error
        return variables.pop("params"), variables

    return start
