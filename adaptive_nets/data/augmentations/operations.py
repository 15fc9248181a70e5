"""Operations of greedy policy search: names, order and ranges of their magnitudes.

The table and its order are those of Molchanov et al. 2020 ("Greedy Policy Search: A Simple Baseline
for Learnable Test-Time Augmentation"), whose policies store operations by index.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.runtime.errors import UserError, did_you_mean

Protocol = Literal["cifar", "imagenet"]
"""Conventions of a data set.

``"cifar"`` reflects images at their borders, skips magnitudes below `SMALLEST_MAGNITUDE` and ends
with a random crop and flip. ``"imagenet"`` fills with black, skips nothing and starts with a random
resized crop.
"""

FULL_MAGNITUDE = 30.0
"""Magnitude at which an operation's value is `Operation.high`; larger ones extrapolate."""
SMALLEST_MAGNITUDE = 0.5
"""Operations of a smaller absolute magnitude are skipped under the protocol ``"cifar"``."""


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation and the range of its value.

    Attributes:
        name: name in the paper's code.
        low: value at magnitude 0.
        high: value at magnitude 30.
        signed: whether a negative magnitude extends the range below `low`; else the absolute
            magnitude is used.
    """

    name: str
    low: float
    high: float
    signed: bool = False


OPERATIONS = (
    Operation("Identity", 0.0, 1.0),
    Operation("ShearX", 0.0, 0.5),
    Operation("ShearY", 0.0, 0.5),
    Operation("TranslateX", 0.0, 0.45),
    Operation("TranslateY", 0.0, 0.45),
    Operation("Rotate", 0.0, 40.0),
    Operation("AutoContrast", 0.0, 10.0),
    Operation("Solarize", 256.0, 128.0),
    Operation("SolarizeAdd", 256.0, 128.0),
    Operation("Posterize", 8.0, 2.0),
    Operation("Contrast", 0.0, 0.8, signed=True),
    Operation("Color", 0.0, 0.9, signed=True),
    Operation("Brightness", 0.0, 0.8, signed=True),
    Operation("Sharpness", 0.0, 0.9, signed=True),
    Operation("Cutout", 0.0, 0.5),
    Operation("RandomResizedCrop", 0.99, 0.08),
    Operation("Invert", 0.0, 1.0),
    Operation("Equalize", 0.0, 1.0),
)
"""All operations in the order of their indices."""
CIFAR_OPERATIONS = OPERATIONS[:15]
"""Operations of a CIFAR sub-policy."""
IMAGENET_OPERATIONS = OPERATIONS
"""Operations of an ImageNet sub-policy."""


def operation_index(name: str) -> int:
    """Returns the index of an operation in `OPERATIONS`.

    Example:
        >>> operation_index("Rotate")
        5

    Raises:
        UserError: no operation has this name.
    """
    names = [operation.name for operation in OPERATIONS]
    if name not in names:
        raise UserError(f"operation is {name!r}; {did_you_mean(name, names)}")
    return names.index(name)


def operation_value(operation: Operation, magnitude: Float[Array, "*N"]) -> Float[Array, "*N"]:
    """Computes low + (high - low)·m/30, where m is the signed or the absolute magnitude.

    Args:
        operation: gives the range.
        magnitude: float[...], in units in which 30 is `Operation.high`.

    Returns:
        float32[...], the value: a fraction of the side, degrees, a percentage, a threshold, bits or
        the change of an enhancement factor.
    """
    m = jnp.asarray(magnitude, jnp.float32)
    if not operation.signed:
        m = jnp.abs(m)
    return (m / FULL_MAGNITUDE) * (operation.high - operation.low) + operation.low
