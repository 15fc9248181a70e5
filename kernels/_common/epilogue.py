"""Checks of the arguments that act on a convolution's output: bias and activation."""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, Float

from kernels._common.arrays import as_array


def as_bias(bias: Any, outputs: int) -> Float[Array, " O"]:
    """Converts a bias to a JAX array.

    Raises:
        ValueError: it is not an array of shape (outputs,); the message names it.
    """
    bias = as_array("bias", bias, f"float[{outputs}]")
    if bias.shape != (outputs,):
        raise ValueError(f"bias has shape {bias.shape}; expected ({outputs},)")
    return bias


def check_activation(activation: Any) -> None:
    """Checks the name of an activation.

    Raises:
        ValueError: it is neither None nor "relu".
    """
    if activation is not None and not (isinstance(activation, str) and activation == "relu"):
        raise ValueError(f'activation is {activation!r}; expected None or "relu"')
