"""Builders of residual networks of adaptive depth, for the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from adaptive_nets.halting import TEMPERATURE
from adaptive_nets.halting.adaptive_computation_time import EPSILON
from adaptive_nets.models.adaptive.blocks import Halting, Rule
from adaptive_nets.models.adaptive.network import Execution, check_execution

SOURCES: dict[Rule, str] = {
    "act": "figurnov2017, graves2016",
    "sact": "figurnov2017",
    "pact": "figurnov2018",
}
"""Bibliography keys of each rule."""

_TITLES: dict[Rule, str] = {
    "act": "adaptive depth per image (ACT)",
    "sact": "adaptive depth at every position (SACT)",
    "pact": "depth as a latent variable at every position (PACT)",
}


def builder(
    rule: Rule, make: Callable[..., nn.Module], title: str, **choices: Any
) -> Callable[..., nn.Module]:
    """Returns a builder that accepts the options of its rule and of its network only.

    Args:
        rule: halting rule of the blocks.
        make: makes the network from ``num_classes``, ``dtype``, ``halting``, ``execution``,
            ``stage_sizes`` and ``widths``; the last two are None for the published network.
        title: title of the plain network, for the description.
        **choices: defaults of further options, which `make` takes too.
    """
    if rule == "pact":

        def build_probabilistic(
            *,
            num_classes: int,
            dtype: Any = jnp.float32,
            head_norm: bool = True,
            groups: int | None = None,
            temperature: float = TEMPERATURE,
            execution: Execution = "dense",
            stage_sizes: Sequence[int] | None = None,
            widths: Sequence[int] | None = None,
            **chosen: Any,
        ) -> nn.Module:
            check_execution(execution)
            halting = Halting(rule, head_norm, groups=groups, temperature=temperature)
            return make(
                num_classes=num_classes,
                dtype=dtype,
                halting=halting,
                execution=execution,
                stage_sizes=stage_sizes,
                widths=widths,
                **(choices | chosen),
            )

        build: Callable[..., nn.Module] = build_probabilistic
    else:

        def build_summed(
            *,
            num_classes: int,
            dtype: Any = jnp.float32,
            head_norm: bool = True,
            eps: float = EPSILON,
            execution: Execution = "dense",
            stage_sizes: Sequence[int] | None = None,
            widths: Sequence[int] | None = None,
            **chosen: Any,
        ) -> nn.Module:
            check_execution(execution)
            halting = Halting(rule, head_norm, eps=eps)
            return make(
                num_classes=num_classes,
                dtype=dtype,
                halting=halting,
                execution=execution,
                stage_sizes=stage_sizes,
                widths=widths,
                **(choices | chosen),
            )

        build = build_summed
    build.__doc__ = f"{title}, {_TITLES[rule]}."
    _replace_last_parameter(build, choices)
    return build


def _replace_last_parameter(build: Callable[..., Any], choices: Mapping[str, Any]) -> None:
    """Names the choices in a function's signature in place of its ``**chosen``."""
    signature = inspect.signature(build)
    *known, _ = signature.parameters.values()
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
        for name, default in choices.items()
    ]
    build.__signature__ = signature.replace(parameters=[*known, *more])  # pyright: ignore
