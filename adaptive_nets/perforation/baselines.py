"""What perforation is compared with: a larger, fractional stride, and a smaller input image.

Both compute fewer positions and hand on a smaller map instead of copies, so every later layer sees
another resolution than it was trained for, and gets cheaper too. They need a network that takes
maps of any size, such as one that ends in global pooling.
"""

from __future__ import annotations

import math
import zlib
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
from kernels.perforated_conv import perforated_conv


def keep_grid(y: Float[Array, "N H W O"], mask: np.ndarray) -> Float[Array, "N K L O"]:
    """The K rows and L columns that a grid mask keeps, as a map of their own.

    Args:
        y: float[N, H', W', O].
        mask: bool[H', W'], K rows times L columns.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return y[:, rows][:, :, columns]


class FractionalStride:
    """A network some of whose convolutions compute the positions of a grid and hand on only those.

    The positions are those of a grid mask, Graham's sequence on each axis, without interpolation:
    the output is K_x x K_y, as with a stride of X'/K_x that need not be whole [figurnov2016, sec.
    4.2]. Behaves as the network it wraps: `init` and `apply` with the same arguments, the same
    variables.

    Args:
        model: the network.
        key: PRNG key of the grids' offsets.
        keeps: layer (path of its module, joined by "/") -> fraction of positions computed, (0, 1].

    Raises:
        UserError: a fraction is outside (0, 1]; on the first use: a layer does not exist or is no
            plain convolution in two dimensions, or a later layer does not take smaller maps.
    """

    def __init__(self, model: nn.Module, key: jax.Array, keeps: Mapping[str, float]):
        for name, keep in keeps.items():
            if not 0 < keep <= 1:
                raise UserError(f"keeps[{name!r}] is {keep!r}; expected a fraction in (0, 1]")
        self.model = model
        self.keeps = dict(keeps)
        self._keys = {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in keeps}

    def init(self, rngs: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Variables of the network; positions do not enter into them."""
        return self.model.init(rngs, images, *args, **options)

    def apply(self, variables: Any, images: Array, *args: Any, **options: Any) -> Any:
        """As the network's own `apply`."""
        return self._run(variables, images, *args, **options)[0]

    def macs(self, variables: Any, image_shape: tuple[int, int, int]) -> int:
        """Multiply-accumulates of one image, those of convolutions and dense layers."""
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
                "expected a network that ends in global pooling"
            ) from error
        return sum(ledger.values())

    def _run(
        self, variables: Any, images: Array, *args: Any, **options: Any
    ) -> tuple[Any, dict[str, int]]:
        met: list[str] = []
        macs: dict[str, int] = {}

        def compute_grid(call, args, kwargs, context):
            module, name = context.module, "/".join(context.module.path)
            if context.method_name != "__call__" or not isinstance(module, nn.Conv | nn.Dense):
                return call(*args, **kwargs)
            if isinstance(module, nn.Conv):
                met.append(name)
            if name in self.keeps and isinstance(module, nn.Conv):
                y = self._grid_of(name, module, *args)
            else:
                y = call(*args, **kwargs)
            kernel = module.get_variable("params", "kernel")
            # Every tap of every computed position; an image alone, without the batch.
            macs[name] = math.prod(y.shape[1:-1]) * math.prod(kernel.shape)
            return y

        with nn.intercept_methods(compute_grid):
            output = self.model.apply(variables, images, *args, **options)
        for name in self.keeps:
            if name not in met:
                raise UserError(f"keeps names the layer {name!r}; expected one of {', '.join(met)}")
        return output, macs

    def _grid_of(self, name: str, module: nn.Conv, x: Array) -> Array:
        kernel = module.get_variable("params", "kernel")
        if kernel.ndim != 4 or module.kernel_dilation not in (1, None, (1, 1)):
            raise UserError(
                f"layer {name!r} cannot have a larger stride; expected a convolution in two "
                "dimensions without dilation"
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
        # Masks are drawn on the host, also while this is being traced.
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
    """Linen's padding as the kernels take it."""
    if isinstance(value, str):
        return value
    axes = (value, value) if isinstance(value, int) else tuple(value)
    return tuple((axis, axis) if isinstance(axis, int) else tuple(axis) for axis in axes)


class SmallerInput:
    """A network that is shown its images at a lower resolution.

    Images are scaled by linear interpolation, widened so that every pixel counts where they shrink.
    Behaves as the network it wraps.

    Args:
        model: the network.
        size: (height, width) of what it is shown.

    Raises:
        UserError: the size is not positive.
    """

    def __init__(self, model: nn.Module, size: tuple[int, int]):
        if min(size) < 1:
            raise UserError(f"size is {size!r}; expected two positive numbers of pixels")
        self.model = model
        self.size = size

    def init(self, rngs: Any, images: Array, *args: Any, **options: Any) -> Any:
        """Variables of the network."""
        return self.model.init(rngs, self.resize(images), *args, **options)

    def apply(self, variables: Any, images: Array, *args: Any, **options: Any) -> Any:
        """As the network's own `apply`."""
        return self.model.apply(variables, self.resize(images), *args, **options)

    def resize(self, images: Float[Array, "N H W C"]) -> Float[Array, "N h w C"]:
        """The images as the network sees them."""
        shape = (images.shape[0], *self.size, images.shape[3])
        return jax.image.resize(images, shape, "linear")
