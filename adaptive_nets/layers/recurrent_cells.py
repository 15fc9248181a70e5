"""LSTM, HyperLSTM and HyperRNN over sequences: modules own parameters and scan the pure steps.

All take float[N, T, I] and return the outputs float[N, T, H] and the final state, from which the
next segment of the same sequences can start. In training, recurrent dropout draws an independent
mask per step from the stream ``dropout``.
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

# Row scaling at initialisation.
INITIAL_SCALING = 0.1

Sequence = Float[Array, "N T I"]


def _orthogonal_gates(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Initialises float[I, G, H], an orthogonal matrix per gate."""
    inputs, gates, outputs = shape
    keys = jax.random.split(key, gates)
    make = initializers.orthogonal()
    return jnp.stack([make(k, (inputs, outputs), dtype) for k in keys], axis=1)


class _Parameters(nn.Module):
    """Base of modules that own the parameters of one part of a cell."""

    def _norm(self, name: str, shape: tuple[int, ...]) -> Norm:
        scale = self.param(f"{name}_scale", initializers.ones, shape, jnp.float32)
        return Norm(scale, self.param(f"{name}_offset", initializers.zeros, shape, jnp.float32))


class LSTMParameters(_Parameters):
    """Parameters of an LSTM of H = `hidden` units: orthogonal matrices, zero biases.

    There are 4·(H·(I + H) + H) parameters, and 10·H more with layer normalisation.
    """

    hidden: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, inputs: int) -> LSTMWeights:
        """Returns the parameters for `inputs` input features."""
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
    """Parameters of a plain recurrent network of H = `hidden` units.

    There are H·(I + H) + H parameters, and 2·H more with layer normalisation. Without `matrices`
    only the bias and the normalisation exist.
    """

    hidden: int
    layer_norm: bool = False
    matrices: bool = True

    @nn.compact
    def __call__(self, inputs: int) -> RNNWeights:
        """Returns the parameters for `inputs` input features."""
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
    """Parameters of the row scalings, which are 0.1 for any input at initialisation.

    Projections to z_h and z_x are initialised to zero with bias 1, the projection to z_b normal
    with standard deviation 0.01 and without bias, D_h and D_x constant, D_b zero.

    Attributes:
        hidden: number of scaled rows H.
        embedding_size: Z.
        gates: () for a plain recurrent network, (4,) for an LSTM.
        matrices: whether D_h and D_x exist; False if matrices are fully generated.
    """

    hidden: int
    embedding_size: int
    gates: tuple[int, ...] = ()
    matrices: bool = True

    @nn.compact
    def __call__(self, inputs: int) -> Scaling:
        """Returns the parameters for a small network of `inputs` units."""
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
    """Base of the recurrent modules.

    Attributes:
        hidden: number of units H.
        layer_norm: whether to normalise preactivations and the cell state of an LSTM.
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
        """Scans step(state, x_t, t) over time."""

        def body(state, at_step):
            new = step(state, *at_step)
            return new, output(new)

        over_time = jnp.swapaxes(jnp.asarray(x, self.dtype), 0, 1), jnp.arange(x.shape[1])
        state, outputs = lax.scan(body, self._cast(state), over_time)
        return jnp.swapaxes(outputs, 0, 1), state


def _dropout_mask(key: Array | None, t: Array, rate: float, like: Array) -> Array | None:
    """Draws recurrent dropout's factors at step t; returns None without a key."""
    if key is None:
        return None
    kept = jax.random.bernoulli(jax.random.fold_in(key, t), 1 - rate, like.shape)
    return kept.astype(like.dtype) / (1 - rate)


class LSTM(_Recurrent):
    """LSTM with optional layer normalisation, see `lstm_step`.

    Attributes:
        dropout_rate: rate of recurrent dropout.
        forget_bias: constant added to the forget gate.
    """

    dropout_rate: float = 0.0
    forget_bias: float = 1.0

    @nn.compact
    def __call__(
        self, x: Sequence, state: LSTMState | None = None, train: bool = False
    ) -> tuple[Float[Array, "N T H"], LSTMState]:
        """Computes the outputs and the final state; the initial `state` is zero by default."""
        weights = self._cast(LSTMParameters(self.hidden, self.layer_norm, name="main")(x.shape[-1]))
        zeros = self._zeros(x, self.hidden)
        key = self._key(self.dropout_rate, train)

        def step(state, x, t):
            keep = _dropout_mask(key, t, self.dropout_rate, state.h)
            return lstm_step(weights, state, x, forget_bias=self.forget_bias, keep=keep)

        return self._scan(step, state or LSTMState(zeros, zeros), x, lambda state: state.h)


class HyperLSTM(_Recurrent):
    """HyperLSTM with optional layer normalisation, see `hyper_lstm_step`.

    Attributes:
        hyper_hidden: number of units n of the small network.
        embedding_size: size Z of each of the twelve embeddings.
        dropout_rate: rate of recurrent dropout in the main network.
        hyper_dropout_rate: rate of recurrent dropout in the small network.
        forget_bias: constant added to the forget gates of both networks.
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
        """Computes the outputs and the final state; the initial `state` is zero by default."""
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
    """HyperRNN with optional layer normalisation, see `hyper_rnn_step`.

    Attributes:
        hyper_hidden: number of units n of the small network.
        embedding_size: size Z of each of the three embeddings.
        full: whether to generate full matrices, as in `full_hyper_rnn_step`, instead of row
            scalings. The Z components of a matrix are initialised orthogonal with scale 0.1/√Z, so
            that their sum has the scale of a row-scaled orthogonal matrix. The paper does not state
            an initialisation.
    """

    hyper_hidden: int = 128
    embedding_size: int = 4
    full: bool = False

    @nn.compact
    def __call__(
        self, x: Sequence, state: HyperRNNState | None = None, train: bool = False
    ) -> tuple[Float[Array, "N T H"], HyperRNNState]:
        """Computes the outputs and the final state; the initial `state` is zero by default."""
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
