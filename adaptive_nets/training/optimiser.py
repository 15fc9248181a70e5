"""Optimisers and learning-rate schedules, built from optax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from adaptive_nets.training.config import OptimiserConfig, ScheduleConfig
from adaptive_nets.training.duration import Timing


def make_schedule(config: ScheduleConfig, timing: Timing, *, peak: float) -> optax.Schedule:
    """Builds the learning-rate schedule.

    Args:
        config: kind and times of the schedule.
        timing: lengths of the run in steps.
        peak: largest learning rate.
    """
    warmup = timing.steps(config.warmup)
    hold = max(timing.steps(config.hold), warmup)
    decay = max(timing.total_steps - hold, 1)
    if config.kind == "linear":
        after = optax.linear_schedule(peak, 0.0, decay, transition_begin=hold - warmup)
    elif config.kind == "cosine":
        cosine = optax.cosine_decay_schedule(peak, decay)
        after = optax.join_schedules([optax.constant_schedule(peak), cosine], [hold - warmup])
    elif config.kind == "step":
        drops = {max(timing.steps(text) - warmup, 0): config.factor for text in config.boundaries}
        after = optax.piecewise_constant_schedule(peak, drops)
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def is_kernel(params: Any) -> Any:
    """Returns the mask of weight decay: True for leaves named ``kernel``."""

    def named_kernel(path, _):
        return bool(path) and getattr(path[-1], "key", None) == "kernel"

    return jax.tree_util.tree_map_with_path(named_kernel, params)


def make_optimiser(
    config: OptimiserConfig,
    schedule: optax.Schedule,
    rate_factors: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """Builds the chain of clipping, weight decay, optimiser and learning rate.

    Args:
        config: optimiser and regularisation.
        schedule: learning rate by step.
        rate_factors: parameters -> factor of the learning rate of each; None for 1.
    """
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.weight_decay and config.name != "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=is_kernel))
    if config.name == "sgd":
        parts.append(optax.trace(config.momentum, nesterov=config.nesterov))
    else:
        parts.append(
            optax.scale_by_adam(config.momentum, config.second_moment_decay, config.epsilon)
        )
    if config.weight_decay and config.name == "adamw":
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=is_kernel))
    parts.append(optax.scale_by_learning_rate(schedule))
    if rate_factors is not None:
        parts.append(_scale_each(rate_factors))
    return optax.chain(*parts)


def _scale_each(factors: Callable[[Any], Any]) -> optax.GradientTransformation:
    def update(updates: Any, params: Any) -> Any:
        del params
        return jax.tree.map(lambda step, factor: step * factor, updates, factors(updates))

    return optax.stateless(update)
