"""Parameters of networks of adaptive depth: names of heads, checks, initialisation from plain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from adaptive_nets.runtime.errors import UserError

_HEAD = re.compile(r"_(act|sact|pact)_head$")


def head_name(unit: str, rule: str) -> str:
    """Returns the scope of the head after a unit."""
    return f"{unit}_{rule}_head"


def is_head(name: str) -> bool:
    """Returns whether a scope belongs to a halting head."""
    return _HEAD.search(name) is not None


def halting_rule(params: Mapping[str, Any]) -> str | None:
    """Returns the rule of the heads among a network's parameters; None if there are none."""
    found = (_HEAD.search(name) for name in params)
    return next((match[1] for match in found if match), None)


def check_halting_rule(params: Mapping[str, Any], rule: str, *, source: str) -> None:
    """Raises an error if there are heads of another rule; parameters without heads pass.

    Args:
        params: parameters of a network, by scope.
        rule: halting rule of the network.
        source: origin of the parameters, for the message.

    Raises:
        UserError: the parameters have heads of another rule.
    """
    found = halting_rule(params)
    if found in (None, rule):
        return
    if "pact" in (found, rule):
        meaning = {True: "halting probabilities", False: "halting scores that are summed"}
        why = f"its heads compute {meaning[found == 'pact']}, not {meaning[rule == 'pact']}"
    else:
        why = "heads decide per image (act) or per position (sact)"
    raise UserError(f"{source} has halting heads of {found!r}; expected those of {rule!r}: {why}")


def init_from_plain(adaptive: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Initialises an adaptive network from a trained plain one: two-stage training [figurnov2017].

    Copies everything from the plain network except the halting heads, which keep their initial
    values.

    Args:
        adaptive: initial variables of the adaptive network, {"params": ..., ...}.
        plain: variables of the plain network, or of one with heads of the same rule.

    Returns:
        Variables with the structure of `adaptive`.

    Raises:
        UserError: an array is missing, unexpected or of another shape, or `plain` has heads of
            another rule.
    """
    rule = halting_rule(adaptive["params"])
    if rule is not None:
        check_halting_rule(plain["params"], rule, source="the plain network")
    result = {}
    for kind, tree in adaptive.items():
        result[kind] = _merge(tree, plain.get(kind, {}), kind)
    return result


def _merge(into: Mapping[str, Any], source: Mapping[str, Any], place: str) -> dict[str, Any]:
    for name in source:
        if name not in into:
            raise UserError(
                f"{place}/{name} of the plain network is unknown to the adaptive network; expected "
                "the plain network of the same architecture"
            )
    merged = {}
    for name, value in into.items():
        where = f"{place}/{name}"
        if name not in source:
            if not is_head(name):
                raise UserError(
                    f"{where} is missing in the plain network; expected every array except heads"
                )
            merged[name] = value
        elif isinstance(value, Mapping):
            merged[name] = _merge(value, source[name], where)
        elif jnp.shape(source[name]) != jnp.shape(value):
            raise UserError(
                f"{where} of the plain network is {jnp.shape(source[name])}; "
                f"expected {jnp.shape(value)}"
            )
        else:
            merged[name] = jnp.asarray(source[name], value.dtype)
    return merged
