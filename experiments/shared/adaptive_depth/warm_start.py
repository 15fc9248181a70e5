"""Warm start of networks of adaptive depth: initial variables, learning rates, schedule of τ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from adaptive_nets.models import model_entry
from adaptive_nets.models.adaptive.forms import plain_form
from adaptive_nets.models.adaptive.weights import init_from_plain, is_head
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.config import TrainConfig
from adaptive_nets.training.depth import BASELINE, TauSchedule, set_head_bias
from adaptive_nets.training.duration import Timing
from adaptive_nets.variational import linear_warmup
from experiments.shared.adaptive_depth.configs import DepthConfig
from experiments.shared.normalisation import normalised_as
from experiments.shared.trained_weights import SOURCE
from experiments.suite.run_inputs import (
    RANDOM,
    RunInput,
    RunInputField,
    load_network,
    load_variables,
    resolve,
)

FLAG = "--halting.start-from"


def tau_schedule(halting: DepthConfig, timing: Timing) -> TauSchedule:
    """Builds the schedule of τ: a linear ramp from 0, then constant.

    Args:
        halting: τ and the length of its ramp.
        timing: lengths of the run in steps.
    """
    end = timing.steps(halting.tau_ramp)
    tau: Any = halting.tau
    return lambda step: tau * (linear_warmup(step, start=0, end=end) if end else 1.0)


def find_plain(where: str, *, seed: int) -> RunInput | None:
    """Resolves the network that a run starts from; None for a new or a random one.

    Args:
        where: value of the flag.
        seed: seed of the run.

    Raises:
        UserError: it does not exist.
    """
    if not where or where == RANDOM:
        return None
    return resolve(where, RunInputField(), flag="halting.start_from", seed=seed)


def load_plain(found: RunInput, model: str) -> tuple[dict[str, Any], InputNormalisation | None]:
    """Loads the network that a run starts from.

    Args:
        found: the network, from `find_plain`.
        model: name of the network of adaptive depth.

    Returns:
        Its variables, and the normalisation of its inputs; None for a checkpoint, which lacks it.

    Raises:
        UserError: it cannot be read, or is another network.
    """
    if found.kind == "checkpoint":
        return load_variables(found), None
    plain = plain_form(model)
    stored = load_network(found, plain if found.kind == "weights" else None)
    if model_entry(stored.model).name not in (plain, model_entry(model).name):
        raise UserError(
            f"{FLAG} is {str(found.path)!r}, which holds the network {stored.model!r}; expected "
            f"{plain!r}"
        )
    return stored.variables, stored.normalisation


def registered_normalisation(model: str) -> InputNormalisation:
    """Returns the normalisation of the plain network of a form of adaptive depth."""
    return model_entry(plain_form(model)).normalisation.to_input_normalisation()


def with_plain_images(values: TrainConfig, where: str, *, seed: int) -> TrainConfig:
    """Returns the configuration with images normalised as its plain network expects them.

    It changes nothing unless ``--data.centre`` is "source".

    Args:
        values: configuration of the training of a network of adaptive depth.
        where: plain network that it starts from; empty for none.
        seed: seed of the run.

    Raises:
        UserError: there is no such network, or its normalisation is not known.
    """
    if values.data.centre != SOURCE or not where:
        return values
    name, found = values.model.name, find_plain(where, seed=seed)
    theirs = load_plain(found, name)[1] if found else registered_normalisation(name)
    return dataclasses.replace(values, data=normalised_as(values.data, theirs, flag=FLAG))


def warm_start_fn(
    halting: DepthConfig, model: str, *, seed: int
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Builds a function (initial params, model state) -> params and model state to train from.

    It sets the bias of the halting heads. If ``start_from`` is given, it copies all other variables
    from that trained plain network; "random" keeps the initial ones.

    Args:
        halting: bias of the heads and source of the weights.
        model: name of the network of adaptive depth.
        seed: seed of the run.

    Raises:
        UserError: the network cannot be read.
    """
    found = find_plain(halting.start_from, seed=seed)
    stored = None if found is None else load_plain(found, model)[0]

    def start(params: Any, model_state: Any) -> tuple[Any, Any]:
        params = set_head_bias(params, halting.bias)
        if stored is None:
            return params, model_state
        # The moving average of rewards belongs to the training.
        kept = {kind: tree for kind, tree in model_state.items() if kind == BASELINE}
        network = {kind: tree for kind, tree in model_state.items() if kind != BASELINE}
        try:
            variables = init_from_plain({"params": params, **network}, stored)
        except UserError as error:
            raise UserError(f"{FLAG} is {halting.start_from!r}: {error}") from error
        return variables.pop("params"), {**variables, **kept}

    return start


def plain_rate_factors(factor: float) -> Callable[[Any], Any] | None:
    """Returns (params) -> factors of the learning rate: 1 for halting heads, else `factor`.

    The authors' code had such a lower rate for trained weights before its release.
    """
    if factor == 1:
        return None

    def factors(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: 1.0 if is_head(path[0].key) else factor, params
        )

    return factors
