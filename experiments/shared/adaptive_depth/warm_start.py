"""Warm start of networks of adaptive depth: initial variables and schedule of τ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adaptive_nets.models.adaptive.weights import init_from_plain
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.depth import TauSchedule, set_head_bias
from adaptive_nets.training.duration import Timing
from adaptive_nets.variational import linear_warmup
from experiments.shared.adaptive_depth.configs import DepthConfig
from experiments.suite.run_inputs import RANDOM, RunInputField, load_variables, resolve


def tau_schedule(halting: DepthConfig, timing: Timing) -> TauSchedule:
    """Builds the schedule of τ: a linear ramp from 0, then constant.

    Args:
        halting: τ and the length of its ramp.
        timing: lengths of the run in steps.
    """
    end = timing.steps(halting.tau_ramp)
    tau: Any = halting.tau
    return lambda step: tau * (linear_warmup(step, start=0, end=end) if end else 1.0)


def warm_start_fn(halting: DepthConfig, *, seed: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Builds a function (initial params, model state) -> params and model state to train from.

    It sets the bias of the halting heads. If ``start_from`` is given, it copies all other variables
    from that trained plain network; "random" keeps the initial ones.

    Args:
        halting: bias of the heads and source of the weights.
        seed: seed of the run.

    Raises:
        UserError: the network cannot be read.
    """
    stored = None
    if halting.start_from and halting.start_from != RANDOM:
        found = resolve(halting.start_from, RunInputField(), flag="halting.start_from", seed=seed)
        stored = load_variables(found)

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        params = set_head_bias(params, halting.bias)
        if stored is None:
            return params, model_state
        try:
            variables = init_from_plain({"params": params, **model_state}, stored)
        except UserError as error:
            raise UserError(f"--halting.start-from is {halting.start_from!r}: {error}") from error
        return variables.pop("params"), variables

    return start
