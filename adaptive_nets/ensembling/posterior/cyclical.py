"""Learning-rate schedules of ensembles: piecewise linear, cosine cycles and triangular cycles.

All take the number of completed steps, an integer or an array, and can be traced.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

Step = Array | int


@dataclasses.dataclass(frozen=True)
class PiecewiseRate:
    """Constant, then linear decay, then constant [ashukha2020, app. on training].

    Attributes:
        peak: learning rate until `hold`.
        steps: length of the training in steps.
        hold: share of the training at which the decay starts.
        end: share of the training at which the decay ends.
        final: rate after the decay, as a share of the peak.

    Example:
        >>> rate = PiecewiseRate(0.1, 100)
        >>> [round(float(rate(step)), 4) for step in (0, 50, 70, 90, 99)]
        [0.1, 0.1, 0.0505, 0.001, 0.001]
    """

    peak: float
    steps: int
    hold: float = 0.5
    end: float = 0.9
    final: float = 0.01

    def __call__(self, step: Step) -> Float[Array, ""]:
        """Returns the learning rate of a step."""
        position = jnp.asarray(step, jnp.float32) / self.steps
        ramp = jnp.clip((position - self.hold) / max(self.end - self.hold, 1e-12), 0.0, 1.0)
        return self.peak * (1.0 - (1.0 - self.final) * ramp)


@dataclasses.dataclass(frozen=True)
class ConstantRate:
    """One learning rate for all steps.

    Attributes:
        peak: learning rate.
    """

    peak: float

    def __call__(self, step: Step) -> Float[Array, ""]:
        """Returns the learning rate of a step."""
        return jnp.full_like(jnp.asarray(step, jnp.float32), self.peak)


@dataclasses.dataclass(frozen=True)
class CosineCycles:
    """Cosine annealing with restarts, ½·peak·(cos(π·(t mod L)/L) + 1) [huang2017a, eq. 2].

    Attributes:
        peak: learning rate at the start of each cycle.
        length: length L of a cycle in steps.
    """

    peak: float
    length: int

    def __call__(self, step: Step) -> Float[Array, ""]:
        """Returns the learning rate of a step."""
        position = jnp.mod(jnp.asarray(step, jnp.float32), self.length) / self.length
        return 0.5 * self.peak * (jnp.cos(jnp.pi * position) + 1.0)


@dataclasses.dataclass(frozen=True)
class TriangularCycles:
    """Linear from high to low in the first half of a cycle, and back [garipov2018, sec. 4].

    Attributes:
        high: learning rate at both ends of a cycle.
        low: learning rate in the middle.
        length: length of a cycle in steps, even.
    """

    high: float
    low: float
    length: int

    def __call__(self, step: Step) -> Float[Array, ""]:
        """Returns the learning rate of a step."""
        position = jnp.mod(jnp.asarray(step, jnp.float32), self.length) / self.length
        return self.low + (self.high - self.low) * jnp.abs(1.0 - 2.0 * position)


def cycle_ends(length: int, cycles: int) -> tuple[int, ...]:
    """Returns the steps after which each cycle is complete: L, 2 L, ...; members of SSE."""
    return tuple(length * (cycle + 1) for cycle in range(cycles))


def cycle_middles(length: int, cycles: int) -> tuple[int, ...]:
    """Returns the steps in the middle of each cycle, L/2, 3 L/2, ...; members of FGE."""
    return tuple(length * cycle + length // 2 for cycle in range(cycles))


def last_of_cycles(length: int, cycles: int, *, samples: int, every: int) -> tuple[int, ...]:
    """Returns the last steps of each cycle, `every` steps apart; members of cSGLD.

    Args:
        length: length of a cycle in steps.
        cycles: number of cycles.
        samples: number of members per cycle.
        every: steps between them; ``samples * every`` is at most `length`.
    """
    return tuple(
        end - every * (samples - 1 - sample)
        for end in cycle_ends(length, cycles)
        for sample in range(samples)
    )
