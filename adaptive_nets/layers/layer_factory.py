"""Factories of dense and convolutional layers: plain or with sparse variational dropout.

A model family calls `dense` and `conv` of a `LayerKind`, so one definition gives the plain and the
variational network. A kind is a frozen dataclass, so that it can be an attribute of a linen module.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
from jaxtyping import Array

from adaptive_nets.layers.convolution import Conv
from adaptive_nets.layers.kernel_init import HE_FAN_IN
from adaptive_nets.layers.sparse_vd import Parameterisation, SparseConv, SparseDense
from adaptive_nets.variational.sparsity import THRESHOLD

Layer = Callable[[Array], Array]


class LayerKind(Protocol):
    """Factory of layers, called inside a compact linen method."""

    def dense(self, features: int, *, name: str, train: bool, dtype: Any) -> Layer:
        """Creates a dense layer with bias, float[N, I] -> float[N, features]."""
        ...

    def conv(
        self,
        features: int,
        kernel_size: tuple[int, int],
        *,
        name: str,
        train: bool,
        dtype: Any,
        strides: tuple[int, int] = (1, 1),
        padding: Any = "SAME",
    ) -> Layer:
        """Creates a convolution with bias, float[N, H, W, C] -> float[N, H', W', features]."""
        ...


@dataclasses.dataclass(frozen=True)
class PlainLayers:
    """Factory of `nn.Dense` and `nn.Conv` with He initialisation, for layers followed by ReLU."""

    def dense(self, features, *, name, train, dtype):  # noqa: D102 - see LayerKind
        del train
        return nn.Dense(features, dtype=dtype, kernel_init=HE_FAN_IN, name=name)

    def conv(  # noqa: D102
        self, features, kernel_size, *, name, train, dtype, strides=(1, 1), padding="SAME"
    ):
        del train
        return Conv(
            features,
            kernel_size,
            strides=strides,
            padding=padding,
            dtype=dtype,
            kernel_init=HE_FAN_IN,
            name=name,
        )


@dataclasses.dataclass(frozen=True)
class SparseVDLayers:
    """Factory of layers with sparse variational dropout; attributes as in `SparseDense`."""

    log_sigma2_init: float = -10.0
    threshold: float = THRESHOLD
    mask_in_training: bool = True
    clip_noise: bool = True
    parameterisation: Parameterisation = "additive"

    def dense(self, features, *, name, train, dtype):  # noqa: D102
        layer = SparseDense(features, dtype=dtype, name=name, **dataclasses.asdict(self))
        return lambda x: layer(x, train)

    def conv(  # noqa: D102
        self, features, kernel_size, *, name, train, dtype, strides=(1, 1), padding="SAME"
    ):
        layer = SparseConv(
            features,
            kernel_size=kernel_size,
            strides=strides,
            padding=padding,
            dtype=dtype,
            name=name,
            **dataclasses.asdict(self),
        )
        return lambda x: layer(x, train)


PLAIN = PlainLayers()
