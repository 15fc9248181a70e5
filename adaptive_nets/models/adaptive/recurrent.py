"""Recurrent network with adaptive computation per time step [graves2016, figurnov2018].

Each time step is one adaptive block. Its units are updates of the state, a map of one position. A
flag marks the input of the first update. The halting probability after an update is
h = σ(W·U + b).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.halting import TEMPERATURE, conv_flops, mask_residual
from adaptive_nets.halting.adaptive_computation_time import EPSILON
from adaptive_nets.layers.halting_head import BIAS
from adaptive_nets.models.adaptive.blocks import Halting, Head, Rule, Unit
from adaptive_nets.models.adaptive.cost import BlockCost
from adaptive_nets.models.adaptive.network import AdaptiveNetwork, RunBlock
from adaptive_nets.models.adaptive.units import MapSize
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError


class AdaptiveRecurrent(AdaptiveNetwork):
    """Tanh recurrent network with an adaptive number of updates per time step.

    A class is a sequence of answers, one bit per time step. Its logit is the sum of the answers'
    log-probabilities up to a constant, so its cross-entropy is the sum of the answers'
    cross-entropies. Inputs are float[N, T, I, 1] centred at 1, such as images with rows of
    {0, 1, 2}. There is no skipping form.

    Attributes:
        hidden: size of the state U.
        max_units: L, largest number of updates in a time step.
        num_classes: number of classes, at most 2^T.
        dtype: dtype of the computation.
    """

    hidden: int = 64
    max_units: int = 6
    num_classes: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def forward(self, x: Array, train: bool, run_block: RunBlock) -> Float[Array, "N K"]:
        """See `AdaptiveNetwork`.

        Raises:
            UserError: the number of time steps is less than log2(num_classes).
        """
        del train
        count, steps = x.shape[:2]
        if not 1 <= self.num_classes <= 2**steps:
            raise UserError(
                f"num_classes is {self.num_classes}; "
                f"expected at most {2**steps} for {steps} time steps"
            )
        update = nn.Dense(
            self.hidden, kernel_init=initializers.orthogonal(), dtype=self.dtype, name="update"
        )
        read = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="read")
        answer = nn.Dense(1, dtype=self.dtype, name="answer")
        head = nn.Dense(1, bias_init=initializers.constant(BIAS), name=f"{self.halting.rule}_head")
        state = jnp.zeros((count, 1, 1, self.hidden), self.dtype)
        answers: list[Array] = []
        for step in range(steps):
            values = x[:, step, :, 0].astype(self.dtype) - 1
            flags = (jnp.ones((count, 1), self.dtype), jnp.zeros((count, 1), self.dtype))
            seen = [read(jnp.concatenate([values, flag], axis=1)) for flag in flags]

            def unit(state: Array, mask: Array | None, seen: Array) -> Array:
                new = jnp.tanh(update(state) + seen[:, None, None])
                return new if mask is None else state + mask_residual(new - state, mask)

            units: list[Unit] = [
                lambda state, mask, seen=seen[i > 0]: unit(state, mask, seen)
                for i in range(self.max_units)
            ]
            state = run_block(units, [self._head_fn(head)] * (self.max_units - 1), state)
            answers.append(answer(state[:, 0, 0])[:, 0])
        return joint_logits(jnp.stack(answers, axis=1), self.num_classes)

    @nn.nowrap
    def _head_fn(self, head: nn.Module) -> Head:
        """Returns the head with one logit per image (ACT) or per position."""
        if self.halting.rule == "act":
            return lambda state: head(state[:, 0, 0].astype(jnp.float32))[:, 0]
        return lambda state: head(state.astype(jnp.float32))[..., 0]

    @nn.nowrap
    def block_costs(
        self, map_sizes: Sequence[MapSize], image_size: MapSize | None
    ) -> tuple[BlockCost, ...]:
        """See `AdaptiveNetwork`; needs the size (T, I) of the inputs."""
        if image_size is None or image_size[0] != len(map_sizes):
            raise UserError(
                f"image_size is {image_size}; expected (T, I), the size of the inputs, with "
                f"T = {len(map_sizes)}, the number of blocks of the output"
            )
        kernels = ((1, 1, self.hidden, self.hidden),)
        update = int(conv_flops(1, (1, 1), self.hidden, self.hidden))
        # The input is read twice in every time step, flagged and not.
        read = 2 * int(conv_flops(1, (1, 1), image_size[1] + 1, self.hidden))
        head = int(conv_flops(1, (1, 1), self.hidden, 1))
        return (BlockCost(update + read, kernels, head),) * len(map_sizes)

    @nn.nowrap
    def fixed_flops(self, map_sizes: Sequence[MapSize], image_size: MapSize | None) -> int:
        """Returns the FLOPs of the answers; see `AdaptiveNetwork`."""
        del image_size
        return len(map_sizes) * int(conv_flops(1, (1, 1), self.hidden, 1))


def joint_logits(answers: Float[Array, "N T"], num_classes: int) -> Float[Array, "N K"]:
    """Sums the logits of answers over the bits of each class.

    Args:
        answers: float[N, T], logit of the event that answer t is 1.
        num_classes: K, number of classes, at most 2^T.

    Returns:
        float[N, K]; bit t of a class is its answer t.
    """
    steps = answers.shape[1]
    classes = jnp.arange(num_classes)[:, None]
    bits = (classes >> jnp.arange(steps)[None]) & 1
    return answers @ bits.T.astype(answers.dtype)


def _builder(rule: Rule) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int,
        dtype: Any = jnp.float32,
        hidden: int = 64,
        max_units: int = 6,
        eps: float = EPSILON,
        temperature: float = TEMPERATURE,
    ) -> nn.Module:
        halting = Halting(rule, eps=eps, temperature=temperature)
        return AdaptiveRecurrent(
            halting=halting,
            hidden=hidden,
            max_units=max_units,
            num_classes=num_classes,
            dtype=dtype,
        )

    build.__doc__ = f"Recurrent network with adaptive computation per time step ({rule})."
    return build


_RULES: dict[Rule, str] = {"act": "graves2016", "pact": "figurnov2018"}
for _rule, _source in _RULES.items():
    register_model(f"rnn_{_rule}_parity", input_shape=(3, 5, 1), num_classes=8, source=_source)(
        _builder(_rule)
    )
