"""Stochastic gradient Langevin dynamics: noise that makes the steps of SGD samples [welling2011].

In cyclical SGLD the noise is added in the last part of a cosine cycle only [zhang2020].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt32

Schedule = Callable[[Any], Float[Array, ""]]
"""Completed steps -> learning rate."""
Active = Callable[[Any], Bool[Array, ""]]
"""Completed steps -> whether noise is added."""


class LangevinState(NamedTuple):
    """State of `langevin_noise`.

    Attributes:
        step: int32[], completed steps.
        key: uint32[2], data of the PRNG key of the noise.
    """

    step: Int[Array, ""]
    key: UInt32[Array, " 2"]


def langevin_noise(
    schedule: Schedule,
    *,
    temperature: float,
    examples: int,
    momentum: float = 0.0,
    active: Active | None = None,
) -> optax.GradientTransformation:
    """Adds noise to gradients of the mean loss, before momentum and learning rate.

    For the mean loss U/N of N examples and learning rate ε, the step with noise is
    θ ← θ − ε ∇U/N + √(2 ε T / N) ξ with ξ ~ N(0, 1), whose stationary density is exp(−U/T) for
    small ε [welling2011, eq. 4]. T = 1 is the Bayesian posterior; the authors of cyclical SGLD use
    T = 1/N on CIFAR, so that the noise is √(2 ε)/N. With momentum μ the variance has the factor
    1 − μ, the friction of SGHMC [chen2014, eq. 15].

    Args:
        schedule: learning rate ε by step, the one that follows in the chain.
        temperature: T; 0 adds no noise.
        examples: N.
        momentum: μ of the momentum that follows in the chain.
        active: whether a step has noise; None for all steps.

    Returns:
        Transformation whose state has the key of the noise, see `seed_noise`.
    """
    variance = 2.0 * (1.0 - momentum) * temperature / examples

    def init(params: Any) -> LangevinState:
        del params
        return LangevinState(jnp.int32(0), jnp.zeros(2, jnp.uint32))

    def update(updates: Any, state: LangevinState, params: Any = None) -> tuple[Any, LangevinState]:
        del params
        on = jnp.bool_(True) if active is None else active(state.step)
        # Divided by ε, since the learning rate multiplies the sum.
        rate = jnp.maximum(schedule(state.step), jnp.finfo(jnp.float32).tiny)
        deviation = jnp.where(on, jnp.sqrt(variance / rate), 0.0)
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        leaves, structure = jax.tree.flatten(updates)
        noisy = [
            leaf + deviation.astype(leaf.dtype) * jax.random.normal(part, leaf.shape, leaf.dtype)
            for leaf, part in zip(leaves, jax.random.split(key, len(leaves)), strict=True)
        ]
        return jax.tree.unflatten(structure, noisy), LangevinState(state.step + 1, state.key)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def seed_noise(opt_state: Any, key: PRNGKeyArray) -> Any:
    """Returns the state of an optimiser with the key of its `langevin_noise`, if it has one."""

    def seeded(part: Any) -> Any:
        if isinstance(part, LangevinState):
            return part._replace(key=jax.random.key_data(key))
        return part

    return jax.tree.map(seeded, opt_state, is_leaf=lambda part: isinstance(part, LangevinState))


def last_steps(length: int, steps: int) -> Active:
    """Returns a function (completed steps) -> whether a step is among the last of its cycle.

    Args:
        length: length of a cycle in steps.
        steps: number of last steps.
    """
    return lambda step: jnp.mod(step, length) >= length - steps
