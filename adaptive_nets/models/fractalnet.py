"""FractalNet: deep networks without residual connections (larsson2017).

A block of C columns is f_1(z) = conv(z), f_{C+1}(z) = join(f_C(f_C(z)), conv(z)). Column c,
counted from 0, has 2^c convolutions. A join averages all columns that have a convolution ending at
its depth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.layers.conv_norm import ConvNorm
from adaptive_nets.layers.drop_path import DropPathDraw, draw_paths, mean_of_live
from adaptive_nets.layers.kernel_init import GLOROT_NORMAL
from adaptive_nets.layers.pooling import global_avg_pool, max_pool
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError

WIDTHS = (64, 128, 256, 512, 512)
DROPOUT_RATES = (0.0, 0.1, 0.2, 0.3, 0.4)


class FractalBlock(nn.Module):
    """Fractal block: columns of 3x3 convolutions joined by means, then 2x2 pooling.

    Convolution i of column c is named ``column{c}_{i}``.

    Attributes:
        features: number of channels.
        columns: number C of columns; the deepest has 2^(C - 1) convolutions.
        column: index of the only column to build; None builds all.
        first_join: index of the block's first join in the network.
        pool_before_join: whether 2x2 max pooling is applied to every column before the last join
            instead of once after it.
        use_bias: whether convolutions have biases.
        affine: whether batch normalisations have a scale and a shift.
        dropout_rate: dropout rate between convolution and normalisation (stream ``dropout``).
        dtype: dtype of the computation.
    """

    features: int
    columns: int
    column: int | None = None
    first_join: int = 0
    pool_before_join: bool = True
    use_bias: bool = False
    affine: bool = True
    dropout_rate: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        draw: DropPathDraw | None = None,
    ) -> Float[Array, "N H2 W2 O"]:
        """Computes the block's output; without ``draw`` no path is dropped."""
        states = [x] * self.columns
        steps = 2 ** (self.columns - 1)
        for step in range(1, steps + 1):
            ending = [
                column
                for column in range(self.columns)
                if step % self._stride(column) == 0 and self.column in (None, column)
            ]
            if not ending:
                continue
            branches = [self._conv(column, step)(states[column], train) for column in ending]
            if step == steps and self.pool_before_join:
                branches = [max_pool(branch, (2, 2)) for branch in branches]
            joined = self._join(branches, ending, self.first_join + step - 1, draw)
            for column in ending:
                states[column] = joined
        end = states[-1 if self.column is None else self.column]
        return end if self.pool_before_join else max_pool(end, (2, 2))

    def _stride(self, column: int) -> int:
        """Returns how many convolutions of the deepest column one of this column spans."""
        return 2 ** (self.columns - 1 - column)

    def _conv(self, column: int, step: int) -> ConvNorm:
        return ConvNorm(
            self.features,
            (3, 3),
            use_bias=self.use_bias,
            affine=self.affine,
            dropout_rate=self.dropout_rate,
            kernel_init=GLOROT_NORMAL,
            dtype=self.dtype,
            name=f"column{column}_{step // self._stride(column) - 1}",
        )

    @staticmethod
    def _join(
        branches: list[Array], columns: list[int], join: int, draw: DropPathDraw | None
    ) -> Array:
        if len(branches) == 1:
            return branches[0]
        live = jnp.ones((1, len(branches)), bool) if draw is None else draw.live(join, columns)
        return mean_of_live(branches, live)


class FractalNet(nn.Module):
    """FractalNet: B blocks of C columns, B 2^(C - 1) convolutions deep, then a linear layer.

    Each training step drops paths (stream ``drop_path``): either locally, every input of every join
    independently, or globally, all columns but one.

    Attributes:
        columns: number C of columns.
        num_classes: number of logits.
        widths: channels of each block.
        dropout_rates: dropout rate of each block; the default is that of the paper's networks with
            drop-path.
        local_drop_rate: probability of dropping an input of a join in local sampling.
        global_share: probability of global sampling.
        per_example: whether every example has its own draw instead of one draw per mini-batch.
        column: index of the only column to build, a plain chain that uses the variables of the
            whole network; None builds all.
        pool_before_join: position of the pooling, see `FractalBlock`.
        use_bias: whether convolutions have biases.
        affine: whether batch normalisations have a scale and a shift.
        dtype: dtype of the computation.
    """

    columns: int = 3
    num_classes: int = 10
    widths: tuple[int, ...] = WIDTHS
    dropout_rates: tuple[float, ...] = DROPOUT_RATES
    local_drop_rate: float = 0.15
    global_share: float = 0.5
    per_example: bool = False
    column: int | None = None
    pool_before_join: bool = True
    use_bias: bool = False
    affine: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"], train: bool = False) -> Float[Array, "N K"]:
        """Logits of a batch of images.

        Raises:
            UserError: the column does not exist, or the numbers of dropout rates and widths
                differ.
        """
        if self.column is not None and not 0 <= self.column < self.columns:
            raise UserError(f"column is {self.column}; expected 0 to {self.columns - 1}")
        if len(self.dropout_rates) != len(self.widths):
            raise UserError(
                f"dropout_rates is {self.dropout_rates}; expected one for each of the "
                f"{len(self.widths)} blocks"
            )
        draw = None
        if train and self.column is None and (self.local_drop_rate or self.global_share):
            draw = draw_paths(
                self.make_rng("drop_path"),
                self.columns,
                drop_rate=self.local_drop_rate,
                global_share=self.global_share,
                num_draws=x.shape[0] if self.per_example else 1,
            )
        for block, (width, rate) in enumerate(zip(self.widths, self.dropout_rates, strict=True)):
            x = FractalBlock(
                width,
                self.columns,
                column=self.column,
                first_join=block * 2 ** (self.columns - 1),
                pool_before_join=self.pool_before_join,
                use_bias=self.use_bias,
                affine=self.affine,
                dropout_rate=rate,
                dtype=self.dtype,
                name=f"block{block + 1}",
            )(x, train, draw)
        # Five blocks reduce 32x32 to a single position.
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc")(global_avg_pool(x))


def _builder(columns: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        columns: int = columns,
        widths: tuple[int, ...] = WIDTHS,
        dropout_rates: tuple[float, ...] = DROPOUT_RATES,
        local_drop_rate: float = 0.15,
        global_share: float = 0.5,
        per_example: bool = False,
        column: int | None = None,
        pool_before_join: bool = True,
        use_bias: bool = False,
        affine: bool = True,
    ) -> nn.Module:
        return FractalNet(
            columns,
            num_classes=num_classes,
            widths=tuple(widths),
            dropout_rates=tuple(dropout_rates),
            local_drop_rate=local_drop_rate,
            global_share=global_share,
            per_example=per_example,
            column=column,
            pool_before_join=pool_before_join,
            use_bias=use_bias,
            affine=affine,
            dtype=dtype,
        )

    depth = len(WIDTHS) * 2 ** (columns - 1)
    build.__doc__ = (
        f"FractalNet of {columns} columns and {depth} layers with dropout and drop-path."
    )
    return build


for _columns, _depth in ((3, 20), (4, 40)):
    for _classes in (10, 100):
        register_model(
            f"fractalnet{_depth}_cifar{_classes}",
            input_shape=(32, 32, 3),
            num_classes=_classes,
            source="larsson2017",
            aliases=(f"fractalnet_{_depth}_cifar{_classes}",),
        )(_builder(_columns))
