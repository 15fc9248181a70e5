"""PyTorch's default initialisation: kernels and biases uniform within ±1/√fan_in."""

from __future__ import annotations

from flax.linen import initializers
from flax.typing import Initializer

from adaptive_nets.layers.kernel_init import variance_scaling


def kernel_init(*, batch_axis: tuple[int, ...] = ()) -> Initializer:
    """Returns an initialiser of float[..., I, O], uniform within ±1/√fan_in.

    fan_in is I times the kernel's volume; I is the number of input channels per group.

    Args:
        batch_axis: axes that index independent kernels.
    """
    return variance_scaling(1 / 3, "fan_in", "uniform", batch_axis=batch_axis)


def bias_init(fan_in: int) -> Initializer:
    """Returns an initialiser of biases, uniform within ±1/√fan_in."""
    uniform = initializers.uniform(2 * fan_in**-0.5)

    def init(key, shape, dtype=None, **options):
        return uniform(key, shape, dtype, **options) - fan_in**-0.5

    return init
