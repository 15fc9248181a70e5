"""Initialisers of kernels, with the values of `flax.linen.initializers` and quick to compile.

XLA compiles random bits of an array with four axes some five times as long as those of an array
with one axis and the same elements, on a CPU seconds for each kernel of a network. The numbers are
the same: element i of an array depends on the key and on i alone. So kernels are drawn along one
axis, and shaped then.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.typing import Initializer
from jaxtyping import Array, Float

# Standard deviation of a standard normal variable that is kept within ±2.
_TRUNCATED_DEVIATION = 0.87962566103423978

Fan = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["normal", "truncated_normal", "uniform"]


def variance_scaling(
    scale: float, mode: Fan, distribution: Distribution, *, batch_axis: tuple[int, ...] = ()
) -> Initializer:
    """Initialises float[..., I, O] with mean 0 and variance scale / fan.

    fan_in is I and fan_out is O times the kernel's volume; I is the number of inputs of one group
    where there are groups.

    Args:
        scale: over the fan, the variance.
        mode: which fan; "fan_avg" is the mean of both.
        distribution: "truncated_normal" is kept within two of its standard deviations before it is
            cut off.
        batch_axis: axes that number independent kernels.
    """

    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        size = math.prod(shape)
        count = math.prod(shape[axis] for axis in batch_axis)
        volume = size / (shape[-2] * shape[-1] * count) if size else 0
        fan_in, fan_out = shape[-2] * volume, shape[-1] * volume
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        variance = jnp.array(scale / fan if fan else 0, dtype)
        match distribution:
            case "normal":
                values = jax.random.normal(key, (size,), dtype) * jnp.sqrt(variance)
            case "truncated_normal":
                deviation = jnp.sqrt(variance) / jnp.array(_TRUNCATED_DEVIATION, dtype)
                values = jax.random.truncated_normal(key, -2, 2, (size,), dtype) * deviation
            case "uniform":
                values = jax.random.uniform(key, (size,), dtype, -1) * jnp.sqrt(3 * variance)
        return values.reshape(shape)

    return init


def normal(deviation: float) -> Initializer:
    """Initialises an array of any shape with mean 0 and this standard deviation."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32) -> Float[Array, "..."]:
        values = jax.random.normal(key, (math.prod(shape),), dtype) * jnp.array(deviation, dtype)
        return values.reshape(shape)

    return init


# He's, for what ReLU follows: over the fan-in, and over the fan-out, what residual and dense
# networks are trained from (he2015).
HE_FAN_IN = variance_scaling(2.0, "fan_in", "truncated_normal")
HE_FAN_OUT = variance_scaling(2.0, "fan_out", "normal")
# LeCun's, linen's own default, and Glorot's (xavier).
LECUN = variance_scaling(1.0, "fan_in", "truncated_normal")
GLOROT_NORMAL = variance_scaling(1.0, "fan_avg", "truncated_normal")
GLOROT_UNIFORM = variance_scaling(1.0, "fan_avg", "uniform")
