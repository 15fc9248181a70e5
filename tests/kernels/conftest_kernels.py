"""Shapes that every implementation is tried on: odd sizes, strides, padding, groups."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest


@dataclasses.dataclass(frozen=True)
class Shape:
    """A convolution to try."""

    x: tuple[int, int, int, int]
    window: tuple[int, int]
    outputs: int
    strides: tuple[int, int] = (1, 1)
    padding: object = "SAME"
    groups: int = 1

    @property
    def options(self):
        return {"strides": self.strides, "padding": self.padding, "groups": self.groups}

    def arrays(self, rng, dtype=jnp.float32):
        depth = self.x[3] // self.groups
        x = rng.standard_normal(self.x)
        w = rng.standard_normal((*self.window, depth, self.outputs))
        return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


SHAPES = {
    "square": Shape((2, 8, 8, 4), (3, 3), 5),
    "odd": Shape((3, 7, 9, 3), (5, 3), 4, strides=(2, 1), padding="VALID"),
    "even window": Shape((1, 6, 5, 2), (2, 4), 3, strides=(1, 2)),
    "explicit padding": Shape((2, 5, 6, 4), (3, 2), 4, padding=((0, 2), (1, 0)), strides=(1, 3)),
    "groups": Shape((2, 6, 7, 6), (3, 3), 8, groups=2, strides=(2, 2)),
    "depthwise": Shape((1, 5, 5, 4), (3, 3), 4, groups=4),
    "pointwise": Shape((2, 5, 4, 6), (1, 1), 7),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request) -> Shape:
    return request.param


# Strides, uneven padding and groups together cover what a gradient can get wrong; the others take
# as long and are slow.
_WITH_GRADIENTS = ("explicit padding", "groups")
over_shapes_of_gradients = pytest.mark.parametrize(
    "shape",
    [
        pytest.param(shape, id=name, marks=() if name in _WITH_GRADIENTS else pytest.mark.slow)
        for name, shape in SHAPES.items()
    ],
)


@pytest.fixture
def arrays(shape, rng):
    return shape.arrays(rng)


@pytest.fixture
def size(shape, arrays) -> tuple[int, int]:
    from oracle import convolution

    return convolution(*arrays, **shape.options).shape[1:3]


def some(rng, size, keep=0.4) -> np.ndarray:
    mask = rng.random(size) < keep
    mask[-1, 0] = True
    return mask
