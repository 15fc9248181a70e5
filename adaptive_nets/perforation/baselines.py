"""Baselines of perforation: a larger, fractional stride and a smaller input image.

Both compute fewer positions and pass on a smaller map instead of copied values. Later layers become
cheaper but see another resolution than in training. The network must accept maps of any size, as
one with global pooling at its end does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from flax.linen.dtypes import promote_dtype
from jaxtyping import Array, Float

from adaptive_nets.models import logits_of
from adaptive_nets.perforation.masks import grid_mask
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import named_key
from kernels.perforated_conv import perforated_conv


def keep_grid(y: Float[Array, "N H W O"], mask: np.ndarray) -> Float[Array, "N K L O"]:
    """Gathers the K rows and L columns that a grid mask keeps into a smaller map.

    Args:
        y: float[N, H', W', O].
        mask: bool[H', W'], outer product of K kept rows and L kept columns.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return jnp.asarray(y)[:, rows][:, :, columns]


class FractionalStride:
    """Network whose selected convolutions compute only a grid of positions, without interpolation.

    The positions are those of a grid mask, Graham's sequence on each axis. The output is K_x x K_y,
    as with a fractional stride of X'/K_x [figurnov2016, sec. 4.2]. `init` and `apply` have the
    arguments and variables of the wrapped network.

    Args:
        model: wrapped network.
        key: PRNG key of the grid offsets.
        keeps: layer (module path, joined by "/") -> fraction of positions computed, in (0, 1].

    Raises:
        UserError: a fraction is outside (0, 1]. On first use: a layer does not exist or is not an
            undilated two-dimensional convolution, or a later layer does not accept smaller maps.
    """

    def __init__(self, model: nn.Module, key: jax.Array, keeps: Mapping[str, float]):
        for name, keep in keeps.items():
            if not 0 < keep <= 1:
                raise UserError(f"keeps[{name!r}] is {keep!r}; expected a fraction in (0, 1]")
        self.model = model
        self.keeps = dict(keeps)
        self._keys = {name: named_key(key, name) for name in keeps}

    def init(self, rngs: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Initialises the variables of the network, which do not depend on positions."""
        return self.model.init(rngs, images, *args, **options)

    def apply(self, variables: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Applies the network with reduced grids; arguments as of the network's `apply`."""
        return self._run(variables, images, *args, **options)[0]

    def macs(self, variables: Any, image_shape: tuple[int, int, int]) -> int:
        """Counts multiply-accumulates of convolutions and dense layers for one image."""
        image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        ledger: dict[str, int] = {}

        def forward(variables, image):
            output, macs = self._run(variables, image, train=False)
            ledger.update(macs)
            return logits_of(output)

        try:
            jax.eval_shape(forward, variables, image)
        except (TypeError, ValueError, ScopeParamShapeError) as error:
            raise UserError(
                f"{type(self.model).__name__} does not take smaller maps between its layers; "
                "expected a network with global pooling before its classifier"
            ) from error
        return sum(ledger.values())

    def _run(
        self, variables: Any, images: Array, *args: Any, **options: Any
    ) -> tuple[Any, dict[str, int]]:
        conv_names: list[str] = []
        macs: dict[str, int] = {}

        def compute_grid(call, args, kwargs, context):
            module, name = context.module, "/".join(context.module.path)
            if context.method_name != "__call__" or not isinstance(module, nn.Conv | nn.Dense):
                return call(*args, **kwargs)
            if isinstance(module, nn.Conv):
                conv_names.append(name)
            if name in self.keeps and isinstance(module, nn.Conv):
                y = self._convolve_on_grid(name, module, *args)
            else:
                y = call(*args, **kwargs)
            kernel = module.get_variable("params", "kernel")
            # Every tap of every computed position, per image.
            macs[name] = math.prod(y.shape[1:-1]) * math.prod(kernel.shape)
            return y

        with nn.intercept_methods(compute_grid):
            output = self.model.apply(variables, images, *args, **options)
        for name in self.keeps:
            if name not in conv_names:
                raise UserError(
                    f"keeps names the layer {name!r}; expected one of {', '.join(conv_names)}"
                )
        return output, macs

    def _convolve_on_grid(self, name: str, module: nn.Conv, x: Array) -> Array:
        kernel = module.get_variable("params", "kernel")
        if kernel.ndim != 4 or module.kernel_dilation not in (1, None, (1, 1)):
            raise UserError(
                f"layer {name!r} cannot have a fractional stride; expected a two-dimensional "
                "convolution without dilation"
            )
        bias = module.get_variable("params", "bias") if module.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=module.dtype)
        strides, padding = _pair(module.strides), _padding(module.padding)
        shape = jax.eval_shape(
            lambda x, w: jax.lax.conv_general_dilated(
                x, w, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=module.feature_group_count,
            ),
            x, kernel,
        ).shape  # fmt: skip
        # Masks are drawn on the host, even while `apply` is traced.
        with jax.ensure_compile_time_eval():
            mask = grid_mask(self._keys[name], shape[1:3], self.keeps[name])
        y = perforated_conv(
            x, kernel, mask, bias=bias, strides=strides, padding=padding,
            groups=module.feature_group_count, fill="compact",
        )  # fmt: skip
        rows = int(mask.any(axis=1).sum())
        return y.reshape(y.shape[0], rows, -1, y.shape[-1])


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value or (1, 1))  # pyright: ignore


def _padding(value: Any) -> Any:
    """Converts linen's padding to the kernels' form: a name or ((top, bottom), (left, right))."""
    if isinstance(value, str):
        return value
    axes = (value, value) if isinstance(value, int) else tuple(value)
    return tuple((axis, axis) if isinstance(axis, int) else tuple(axis) for axis in axes)


class SmallerInput:
    """Network that receives its images at another resolution.

    Images are resized by linear interpolation, antialiased when downsampled. `init` and `apply`
    have the arguments and variables of the wrapped network.

    Args:
        model: wrapped network.
        size: (height, width) of the resized images.

    Raises:
        UserError: the size is not positive.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        if min(size) < 1:
            raise UserError(f"size is {size!r}; expected two positive numbers of pixels")
        self.model = model
        self.size = size

    def init(self, rngs: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Initialises the variables of the network at the reduced resolution."""
        return self.model.init(rngs, self.resize(images), *args, **options)

    def apply(self, variables: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Applies the network to the resized images; arguments as of the network's `apply`."""
        return self.model.apply(variables, self.resize(images), *args, **options)

    def resize(self, images: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
        """Resizes images to the resolution of the network's input."""
        shape = (images.shape[0], *self.size, images.shape[3])
        return jax.image.resize(images, shape, "linear")
