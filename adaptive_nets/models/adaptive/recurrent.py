"""A recurrent network that thinks as long as each time step asks for [graves2016, figurnov2018].

One adaptive block per time step: its iterations are updates of the state, the input of the first
one is marked, and h = σ(W·U + b) says after which to go on to the next time step. Blocks run by the
rules of the residual ones, a state being a map of one position.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import initializers
from jaxtyping import Array, Float

from adaptive_nets.halting import TEMPERATURE, mask_residual
from adaptive_nets.halting.adaptive_computation_time import EPSILON
from adaptive_nets.layers.halting_head import BIAS
from adaptive_nets.models.adaptive.blocks import (
    Halting,
    Mode,
    Rule,
    run_act_block,
    run_probabilistic_block,
)
from adaptive_nets.models.adaptive.resnet import STREAM
from adaptive_nets.models.output import BlockTrace, ModelOutput
from adaptive_nets.models.registry import register_model
from adaptive_nets.runtime.errors import UserError


class AdaptiveRecurrent(nn.Module):
    """tanh recurrent network with an adaptive number of updates per time step.

    The class is the sequence of its answers, one bit per time step: the logits of the 2^T classes
    are sums of those of the answers, so their cross-entropy is the answers' in sum.

    Attributes:
        halting: the rule; scores are added up ("act") or read as probabilities ("pact").
        hidden: size of the state U.
        max_units: L, largest number of updates in a time step.
        num_classes: at most 2^T, fewer where some sequences of answers never occur.
        dtype: dtype of the computation.
    """

    halting: Halting
    hidden: int = 64
    max_units: int = 6
    num_classes: int = 8
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "N T I 1"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
    ) -> ModelOutput:
        """Logits, and what halting did in each time step.

        Args:
            x: float[N, T, I, 1], inputs with a middle of 1, as images of rows of {0, 1, 2} are.
            train: a probabilistic network is relaxed, unless told.
            mode: of a probabilistic network.
            temperature: λ of relaxed indicators.

        Raises:
            UserError: there are fewer than log2(num_classes) time steps.
        """
        count, steps = x.shape[:2]
        if not 1 <= self.num_classes <= 2**steps:
            raise UserError(
                f"num_classes is {self.num_classes}; "
                f"expected at most {2**steps} for {steps} time steps"
            )
        mode = self.halting.mode(mode, train=train)
        if mode in ("relaxed", "discrete") and not self.has_rng(STREAM):
            raise UserError(
                f"mode is {mode!r} and there is no random stream; expected rngs={{'halting': key}}"
            )
        update = nn.Dense(
            self.hidden, kernel_init=initializers.orthogonal(), dtype=self.dtype, name="update"
        )
        read = nn.Dense(self.hidden, use_bias=False, dtype=self.dtype, name="read")
        answer = nn.Dense(1, dtype=self.dtype, name="answer")
        head = nn.Dense(1, bias_init=initializers.constant(BIAS), name=f"{self.halting.rule}_head")
        state = jnp.zeros((count, 1, 1, self.hidden), self.dtype)
        traces: list[BlockTrace] = []
        answers: list[Array] = []
        for step in range(steps):
            values = x[:, step, :, 0].astype(self.dtype) - 1
            flags = (jnp.ones((count, 1), self.dtype), jnp.zeros((count, 1), self.dtype))
            seen = [read(jnp.concatenate([values, flag], axis=1)) for flag in flags]

            def unit(state: Array, mask: Array | None, seen: Array) -> Array:
                new = jnp.tanh(update(state) + seen[:, None, None])
                return new if mask is None else state + mask_residual(new - state, mask)

            units: list[Callable] = [
                lambda state, mask, seen=seen[i > 0]: unit(state, mask, seen)
                for i in range(self.max_units)
            ]
            heads = [self._head_of(head)] * (self.max_units - 1)
            if mode is None:
                state, trace = run_act_block(
                    units, heads, state, per_image=True, eps=self.halting.eps
                )
            else:
                state, trace = run_probabilistic_block(
                    units,
                    heads,
                    state,
                    mode=mode,
                    groups=1,
                    temperature=self.halting.temperature if temperature is None else temperature,
                    next_key=lambda: self.make_rng(STREAM),
                )
            traces.append(trace)
            answers.append(answer(state[:, 0, 0])[:, 0])
        return ModelOutput(
            joint_logits(jnp.stack(answers, axis=1), self.num_classes), blocks=tuple(traces)
        )

    def _head_of(self, head: nn.Module) -> Callable[[Array], Array]:
        """The head, per image or per position, as its rule wants it."""
        if self.halting.rule == "act":
            return lambda state: head(state[:, 0, 0].astype(jnp.float32))[:, 0]
        return lambda state: head(state.astype(jnp.float32))[..., 0]


def joint_logits(answers: Float[Array, "N T"], num_classes: int) -> Float[Array, "N K"]:
    """Logits of sequences of answers, whose log probabilities add up.

    Args:
        answers: float[N, T], logit of each answer being 1.
        num_classes: K, number of sequences, of all 2^T the first.

    Returns:
        float[N, K]; bit t of the class is answer t.
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
        return AdaptiveRecurrent(halting, hidden, max_units, num_classes, dtype)

    build.__doc__ = f"Recurrent network with adaptive computation per time step ({rule})."
    return build


_RULES: dict[Rule, str] = {"act": "graves2016", "pact": "figurnov2018"}
for _rule, _source in _RULES.items():
    register_model(f"rnn_{_rule}_parity", input_shape=(3, 5, 1), num_classes=8, source=_source)(
        _builder(_rule)
    )
