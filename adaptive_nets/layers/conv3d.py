"""3-D convolution over channels viewed as groups x depth, in place of a 2-D convolution.

C channels are reshaped to g channels of a volume of depth C/g; filters slide over depth, height and
width. s filters give s volumes, which are reshaped to maps again. There are two forms [kondaurova]:

* *code*: g -> s channels, 3x3x3 filters, padding 1 on every axis, so depth is preserved;
  (27·g + 1)·s parameters;
* *text*: one channel of depth C, filters of depth u without padding in depth, so each filter gives
  C - u + 1 maps; (9·u + 1)·s parameters. With u = C it is the 2-D convolution.
"""

from __future__ import annotations

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers import fan_in_uniform
from adaptive_nets.layers.arguments import as_array
from adaptive_nets.layers.convolution import Conv
from adaptive_nets.runtime.errors import UserError

Form = Literal["code", "text"]


def channels_to_depth(
    x: Float[Array, "N H W C"], *, groups: int = 1
) -> Float[Array, "N D H W groups"]:
    """Reshapes C channels to `groups` volumes of depth C/groups, one per contiguous range.

    Args:
        x: float[N, H, W, C]; channel g·(C/groups) + d is position d of volume g.
        groups: number of volumes.

    Raises:
        UserError: `groups` does not divide C.
    """
    x = as_array("x", x)
    *outer, channels = x.shape
    if groups < 1 or channels % groups:
        raise UserError(f"groups {groups} must divide the number of channels, {channels}")
    volumes = x.reshape(*outer, groups, channels // groups)
    return jnp.transpose(volumes, (0, 4, 1, 2, 3))


def depth_to_channels(x: Float[Array, "N D H W s"]) -> Float[Array, "N H W s*D"]:
    """Inverts `channels_to_depth`: volume major, depth minor."""
    x = as_array("x", x, ndim=5, axes="[N, D, H, W, s]")
    n, depth, height, width, volumes = x.shape
    return jnp.transpose(x, (0, 2, 3, 4, 1)).reshape(n, height, width, volumes * depth)


def text_depth(channels: int, maps: int, filters: int) -> int:
    """Computes the filter depth of the text form, u = C - maps/filters + 1.

    Raises:
        UserError: no u between 1 and C gives this number of maps.
    """
    depth = channels - maps // filters + 1 if filters > 0 and maps % filters == 0 else 0
    if not 1 <= depth <= channels:
        raise UserError(
            f"filters {filters} cannot make {maps} maps of {channels} channels; expected a divisor "
            f"of {maps} that is at least {-(-maps // channels)}"
        )
    return depth


def conv3d(
    filters: int, *, inputs: int, depth: int, form: Form, dtype: Any, name: str | None = None
) -> Conv:
    """Creates the 3-D convolution, float[N, D, H, W, inputs] -> float[N, D', H, W, filters].

    Args:
        filters: number s of 3-D filters.
        inputs: number g of input volumes; 1 in the text form.
        depth: filter depth u; 3 in the code form.
        form: "code" pads depth by 1, "text" does not pad depth.
        dtype: dtype of the computation.
        name: name of the linen module.
    """
    along_depth = (1, 1) if form == "code" else (0, 0)
    return Conv(
        filters,
        (depth, 3, 3),
        padding=(along_depth, (1, 1), (1, 1)),
        dtype=dtype,
        kernel_init=fan_in_uniform.kernel_init(),
        bias_init=fan_in_uniform.bias_init(9 * depth * inputs),
        name=name,
    )


class Conv3d(nn.Module):
    """3-D convolution over channels, float[N, H, W, C] -> float[N, D', H, W, s].

    The result is a volume, so that later layers can normalise and pool over depth;
    `depth_to_channels` reshapes it to maps.

    Attributes:
        filters: number s of 3-D filters.
        groups: number g of volumes; ignored by the text form, which has one.
        form: "code" or "text".
        maps: number of output maps s·D' of the text form, which determines its filter depth; C by
            default. The code form ignores it and gives s·C/g.
        dtype: dtype of the computation.
    """

    filters: int
    groups: int = 1
    form: Form = "code"
    maps: int | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N D H W s"]:
        """Applies the convolution."""
        channels = x.shape[-1]
        if self.form == "code":
            inputs, depth = self.groups, 3
        elif self.form == "text":
            inputs, depth = 1, text_depth(channels, self.maps or channels, self.filters)
        else:
            raise UserError(f"form {self.form!r} is unknown; expected 'code' or 'text'")
        x = channels_to_depth(x, groups=inputs)
        return conv3d(
            self.filters, inputs=inputs, depth=depth, form=self.form, dtype=self.dtype, name="conv"
        )(x)
