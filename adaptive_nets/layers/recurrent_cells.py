"""LSTM, HyperLSTM and HyperRNN over sequences: modules own parameters and scan the pure steps.

All take float[N, T, I] and return the outputs float[N, T, H] and the last state, which the next
piece of the same sequences may start from. In training, recurrent dropout draws from the stream
``dropout``, anew for every step.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import initializers
from jax import lax
from jaxtyping import Array, Float

from adaptive_nets.layers.recurrent import (
    HyperLSTMState,
    HyperLSTMWeights,
    HyperRNNState,
    HyperRNNWeights,
    LSTMState,
    LSTMWeights,
    Norm,
    RNNWeights,
    Scaling,
    full_hyper_rnn_step,
    hyper_lstm_step,
    hyper_rnn_step,
    lstm_step,
)

# At the start every row is scaled by this.
INITIAL_SCALING = 0.1

Sequence = Float[Array, "N T I"]


def _orthogonal_gates(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Orthogonal matrices, float[I, G, H], each gate its own."""
    inputs, gates, outputs = shape
    keys = jax.random.split(key, gates)
    make = initializers.orthogonal()
    return jnp.stack([make(k, (inputs, outputs), dtype) for k in keys], axis=1)


class _Parameters(nn.Module):
    """Owns the parameters of one part of a cell."""

    def _norm(self, name: str, shape: tuple[int, ...]) -> Norm:
        scale = self.param(f"{name}_scale", initializers.ones, shape, jnp.float32)
        return Norm(scale, self.param(f"{name}_offset", initializers.zeros, shape, jnp.float32))


class LSTMParameters(_Parameters):
    """Parameters of an LSTM of `hidden` units: orthogonal matrices, zero biases.

    4·(H·(I + H) + H) of them, and 10·H more with layer normalisation.
    """

    hidden: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: int) -> LSTMWeights:
        """The parameters for inputs of this size."""
        hidden = self.hidden
        normed = self.layer_norm
        return LSTMWeights(
            self.param("input_kernel", _orthogonal_gates, (inputs, 4, hidden), jnp.float32),
            self.param("hidden_kernel", _orthogonal_gates, (hidden, 4, hidden), jnp.float32),
            self.param("bias", initializers.zeros, (4, hidden), jnp.float32),
            self._norm("gate", (4, hidden)) if normed else None,
            self._norm("cell", (hidden,)) if normed else None,
        )


class RNNParameters(_Parameters):
    """Parameters of a plain recurrent network of `hidden` units; `matrices` without is bias only.

    H·(I + H) + H of them, and 2·H more with layer normalisation.
    """

    hidden: int
    layer_norm: bool = False
    matrices: bool = True

    @nn.compact
    def __call__(self, inputs: int) -> RNNWeights:
        """The parameters for inputs of this size."""
        hidden = self.hidden
        rows = (inputs, hidden) if self.matrices else (0, 0)
        make = initializers.orthogonal()
        empty = jnp.zeros((0, hidden))
        return RNNWeights(
            self.param("input_kernel", make, (rows[0], hidden)) if self.matrices else empty,
            self.param("hidden_kernel", make, (rows[1], hidden)) if self.matrices else empty,
            self.param("bias", initializers.zeros, (hidden,), jnp.float32),
            self._norm("output", (hidden,)) if self.layer_norm else None,
        )


class ScalingParameters(nn.Module):
    """Parameters of the row scalings, all of which start at 0.1 whatever the input.

    Projections to z_h and z_x start at zero with bias 1, that to z_b normal with deviation 0.01 and
    no bias; D_h and D_x are constant, D_b zero.

    Attributes:
        hidden: H, rows that are scaled.
        embedding_size: Z.
        gates: () for a plain recurrent network, (4,) for an LSTM.
        matrices: whether D_h and D_x exist; not where whole matrices are generated.
    """

    hidden: int
    embedding_size: int
    gates: tuple[int, ...] = ()
    matrices: bool = True

    @nn.compact
    def __call__(self, inputs: int) -> Scaling:
        """The parameters for a small network of this size."""
        embedding = (*self.gates, self.embedding_size)
        expansion = (*embedding, self.hidden)
        start = initializers.constant(INITIAL_SCALING / self.embedding_size)

        def param(name, init, shape):
            return self.param(name, init, shape, jnp.float32)

        def expand(name):
            if not self.matrices:
                return jnp.zeros((*embedding, 0))
            return param(name, start, expansion)

        return Scaling(
            to_h=param("to_h", initializers.zeros, (inputs, *embedding)),
            to_h_bias=param("to_h_bias", initializers.ones, embedding),
            to_x=param("to_x", initializers.zeros, (inputs, *embedding)),
            to_x_bias=param("to_x_bias", initializers.ones, embedding),
            to_b=param("to_b", initializers.normal(0.01), (inputs, *embedding)),
            from_h=expand("from_h"),
            from_x=expand("from_x"),
            from_b=param("from_b", initializers.zeros, expansion),
        )


class _Recurrent(nn.Module):
    """What all cells share.

    Attributes:
        hidden: number of units H.
        layer_norm: whether preactivations, and an LSTM's memory, are normalised.
        dtype: dtype of the computation; parameters stay in float32.
    """

    hidden: int
    layer_norm: bool = False
    dtype: Any = jnp.float32

    def _zeros(self, x: Array, size: int) -> Array:
        return jnp.zeros((x.shape[0], size), self.dtype)

    def _cast(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), tree)

    def _key(self, rate: float, train: bool) -> Array | None:
        return self.make_rng("dropout") if train and rate else None

    def _scan(self, step, state: Any, x: Sequence, output) -> tuple[Array, Any]:
        """Runs step(state, x_t, t) over time."""

        def body(state, at_step):
            new = step(state, *at_step)
            return new, output(new)

        over_time = jnp.swapaxes(jnp.asarray(x, self.dtype), 0, 1), jnp.arange(x.shape[1])
        state, outputs = lax.scan(body, self._cast(state), over_time)
        return jnp.swapaxes(outputs, 0, 1), state


def _dropout_mask(key: Array | None, t: Array, rate: float, like: Array) -> Array | None:
    """Recurrent dropout's factors at step t, or None without a key."""
    if key is None:
        return None
    kept = jax.random.bernoulli(jax.random.fold_in(key, t), 1 - rate, like.shape)
    return kept.astype(like.dtype) / (1 - rate)


class LSTM(_Recurrent):
    """LSTM, plain or with layer normalisation, see `lstm_step`.

    Attributes:
        dropout_rate: of recurrent dropout.
        forget_bias: added to the forget gate.
    """

    dropout_rate: float = 0.0
    forget_bias: float = 1.0

    @nn.compact
    def __call__(
        self, x: Sequence, state: LSTMState | None = None, train: bool = False
    ) -> tuple[Float[Array, "N T H"], LSTMState]:
        """Outputs and the last state; starts from zeros where no state is given."""
        weights = self._cast(LSTMParameters(self.hidden, self.layer_norm, name="main")(x.shape[-1]))
        zeros = self._zeros(x, self.hidden)
        key = self._key(self.dropout_rate, train)

        def step(state, x, t):
            keep = _dropout_mask(key, t, self.dropout_rate, state.h)
            return lstm_step(weights, state, x, forget_bias=self.forget_bias, keep=keep)

        return self._scan(step, state or LSTMState(zeros, zeros), x, lambda state: state.h)


class HyperLSTM(_Recurrent):
    """HyperLSTM, plain or with layer normalisation, see `hyper_lstm_step`.

    Attributes:
        hyper_hidden: units n of the small network.
        embedding_size: numbers Z of each of the twelve embeddings.
        dropout_rate: of recurrent dropout in the large network.
        hyper_dropout_rate: of recurrent dropout in the small one.
        forget_bias: added to the forget gates of both.
    """

    hyper_hidden: int = 128
    embedding_size: int = 4
    dropout_rate: float = 0.0
    hyper_dropout_rate: float = 0.0
    forget_bias: float = 1.0

    @nn.compact
    def __call__(
        self, x: Sequence, state: HyperLSTMState | None = None, train: bool = False
    ) -> tuple[Float[Array, "N T H"], HyperLSTMState]:
        """Outputs and the last state; starts from zeros where no state is given."""
        inputs, hidden, small = x.shape[-1], self.hidden, self.hyper_hidden
        weights = self._cast(
            HyperLSTMWeights(
                LSTMParameters(hidden, self.layer_norm, name="main")(inputs),
                LSTMParameters(small, self.layer_norm, name="hyper")(inputs + hidden),
                ScalingParameters(hidden, self.embedding_size, (4,), name="scaling")(small),
            )
        )
        key = self._key(self.dropout_rate, train)
        hyper_key = self._key(self.hyper_dropout_rate, train)

        def step(state, x, t):
            return hyper_lstm_step(
                weights,
                state,
                x,
                forget_bias=self.forget_bias,
                keep=_dropout_mask(key, t, self.dropout_rate, state.main.h),
                hyper_keep=_dropout_mask(hyper_key, t, self.hyper_dropout_rate, state.hyper.h),
            )

        if state is None:
            zeros, small_zeros = self._zeros(x, hidden), self._zeros(x, small)
            state = HyperLSTMState(LSTMState(zeros, zeros), LSTMState(small_zeros, small_zeros))
        return self._scan(step, state, x, lambda state: state.main.h)


class HyperRNN(_Recurrent):
    """HyperRNN, see `hyper_rnn_step`.

    Attributes:
        hyper_hidden: units n of the small network.
        embedding_size: numbers Z of each of the three embeddings.
        full: whether whole matrices are generated, as in `full_hyper_rnn_step`, instead of scalings
            of their rows. The Z parts of a matrix start orthogonal, 0.1/√Z each, so that their sum
            is as large as a scaled orthogonal one; the paper does not say how they start.
    """

    hyper_hidden: int = 128
    embedding_size: int = 4
    full: bool = False

    @nn.compact
    def __call__(
        self, x: Sequence, state: HyperRNNState | None = None, train: bool = False
    ) -> tuple[Float[Array, "N T H"], HyperRNNState]:
        """Outputs and the last state; starts from zeros where no state is given."""
        del train
        inputs, hidden, small = x.shape[-1], self.hidden, self.hyper_hidden
        rows = not self.full
        weights = self._cast(
            HyperRNNWeights(
                RNNParameters(hidden, self.layer_norm, rows, name="main")(inputs),
                RNNParameters(small, self.layer_norm, name="hyper")(hidden + inputs),
                ScalingParameters(hidden, self.embedding_size, (), rows, name="scaling")(small),
            )
        )
        if rows:

            def step(state, x, t):
                return hyper_rnn_step(weights, state, x)

        else:

            def matrices_init(key, shape, dtype):
                make = initializers.orthogonal(INITIAL_SCALING / shape[0] ** 0.5)
                return jnp.stack(
                    [make(k, shape[1:], dtype) for k in jax.random.split(key, shape[0])]
                )

            sizes = (self.embedding_size, hidden, hidden), (self.embedding_size, inputs, hidden)
            matrices = self._cast(
                (
                    self.param("hidden_matrices", matrices_init, sizes[0], jnp.float32),
                    self.param("input_matrices", matrices_init, sizes[1], jnp.float32),
                )
            )

            def step(state, x, t):
                return full_hyper_rnn_step(matrices, weights, state, x)

        if state is None:
            state = HyperRNNState(self._zeros(x, hidden), self._zeros(x, small))
        return self._scan(step, state, x, lambda state: state.main)
