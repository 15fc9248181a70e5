"""Forms of a network: the plain one, of fixed depth, and those of adaptive depth by halting rule.

A form of adaptive depth names its plain network in its registry entry, so networks of other
distributions have forms too.
"""

from __future__ import annotations

from adaptive_nets.models.registry import list_models, model_entry
from adaptive_nets.runtime.errors import UserError


def adaptive_form(name: str, rule: str) -> str:
    """Returns the name of the form of adaptive depth with a halting rule.

    Args:
        name: name of the plain network, or of its form with the same rule.
        rule: halting rule, "act", "sact" or "pact".

    Raises:
        UserError: the network is unknown, has no such form, or halts by another rule.
    """
    entry = model_entry(name)
    if entry.adapts is not None:
        if entry.adapts[1] != rule:
            raise UserError(
                f"model {name!r} halts by the rule {entry.adapts[1]!r}; expected one of the rule "
                f"{rule!r}, or the plain network {entry.adapts[0]!r}"
            )
        return entry.name
    forms = {
        model_entry(found.adapts[0]).name: found.name
        for found in map(model_entry, list_models())
        if found.adapts is not None and found.adapts[1] == rule
    }
    if entry.name not in forms:
        raise UserError(
            f"model {name!r} has no form of adaptive depth with the rule {rule!r}; expected one of "
            f"{', '.join(sorted(forms))}"
        )
    return forms[entry.name]


def plain_form(name: str) -> str:
    """Returns the name of the plain network of a form of adaptive depth; another name unchanged.

    Raises:
        UserError: the network is unknown.
    """
    entry = model_entry(name)
    return entry.name if entry.adapts is None else model_entry(entry.adapts[0]).name
