"""Initialisation of a detector from a trained classification network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adaptive_nets.models.adaptive.weights import init_from_plain
from adaptive_nets.runtime.errors import UserError


def start_from_classifier(
    variables: Mapping[str, Any], trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Initialises the backbone from a trained network of the zoo; its linear layer is new.

    Halting heads come from the trained network if it has heads of the same rule, as in
    [figurnov2017], where the detector starts from the classification network of the same τ; else
    they keep their initial values.

    Args:
        variables: initial variables of a detector.
        trained: variables of the backbone's network, or of the plain network of its form of
            adaptive depth, with any number of classes.

    Returns:
        Variables with the structure of `variables`.

    Raises:
        UserError: an array is missing, unexpected or of another shape, or the heads are of another
            rule.
    """
    own = {kind: tree["network"] for kind, tree in variables.items() if "network" in tree}
    layer = _linear_layer(own["params"])
    if layer not in trained.get("params", {}):
        raise UserError(
            f"params/{layer} is missing in the trained network; expected a network of the "
            "backbone's architecture"
        )
    source = {**trained, "params": {**trained["params"], layer: own["params"][layer]}}
    started = init_from_plain(own, source)
    return {
        kind: {**tree, "network": started[kind]} if kind in started else dict(tree)
        for kind, tree in variables.items()
    }


def _linear_layer(params: Mapping[str, Any]) -> str:
    """Returns the scope of the linear layer, the only one at the top with a matrix as kernel."""
    (name,) = (
        name for name, tree in params.items() if "kernel" in tree and np.ndim(tree["kernel"]) == 2
    )
    return name
