"""Steps of LSTM, HyperLSTM and HyperRNN cells, with or without layer normalisation [ha2016].

In a hypernetwork a small recurrent network reads the input and the state of the main network, and
scales each row of the main network's matrices. Gates are in the order i, g, f, o, each with its own
matrix: float[I, 4, H]. Scalings use the small network's output of the same step, as in the authors'
code; the paper's formula uses the previous step.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Constant added to the variance in layer normalisation, as in the authors' code.
NORM_EPSILON = 1e-3


class Norm(NamedTuple):
    """Scale and offset of a layer normalisation, float[..., H] each."""

    scale: Array
    offset: Array


class LSTMWeights(NamedTuple):
    """Parameters of an LSTM; both normalisations are present or neither."""

    input_kernel: Float[Array, "I 4 H"]
    hidden_kernel: Float[Array, "H 4 H"]
    bias: Float[Array, "4 H"]
    gate_norm: Norm | None = None
    cell_norm: Norm | None = None


class RNNWeights(NamedTuple):
    """Parameters of a plain recurrent network."""

    input_kernel: Float[Array, "I H"]
    hidden_kernel: Float[Array, "H H"]
    bias: Float[Array, " H"]
    norm: Norm | None = None


class Scaling(NamedTuple):
    """Parameters that map the small network's output u to row scalings of G gates.

    z_h = u A_h + b_h, z_x = u A_x + b_x, z_b = u A_b are embeddings of size Z per gate;
    d_h = z_h D_h and d_x = z_x D_x are the scalings, z_b D_b is the dynamic part of the bias. An
    LSTM has an axis of 4 gates, an RNN has no gate axis.
    """

    to_h: Float[Array, "n *G Z"]
    to_h_bias: Float[Array, "*G Z"]
    to_x: Float[Array, "n *G Z"]
    to_x_bias: Float[Array, "*G Z"]
    to_b: Float[Array, "n *G Z"]
    from_h: Float[Array, "*G Z H"]
    from_x: Float[Array, "*G Z H"]
    from_b: Float[Array, "*G Z H"]


class HyperLSTMWeights(NamedTuple):
    """Parameters of a HyperLSTM: main network, small network on [x; h], scalings."""

    main: LSTMWeights
    hyper: LSTMWeights
    scaling: Scaling


class HyperRNNWeights(NamedTuple):
    """Parameters of a HyperRNN: main network, small network on [h; x], scalings."""

    main: RNNWeights
    hyper: RNNWeights
    scaling: Scaling


class LSTMState(NamedTuple):
    """Cell state and output of an LSTM."""

    c: Float[Array, "N H"]
    h: Float[Array, "N H"]


class HyperLSTMState(NamedTuple):
    """States of the main network and of the small network."""

    main: LSTMState
    hyper: LSTMState


class HyperRNNState(NamedTuple):
    """Outputs of the main network and of the small network."""

    main: Float[Array, "N H"]
    hyper: Float[Array, "N n"]


def layer_norm(
    x: Float[Array, "*N H"], norm: Norm | None, *, epsilon: float = NORM_EPSILON
) -> Float[Array, "*N H"]:
    """Normalises over the last axis in float32, then scales and shifts.

    Args:
        x: float[..., H].
        norm: scale and offset, which match the trailing axes of `x`; None returns `x` unchanged.
        epsilon: constant added to the variance.
    """
    if norm is None:
        return x
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    normal = (centred * jax.lax.rsqrt(variance + epsilon)).astype(x.dtype)
    return normal * _add_leading_axes(norm.scale, x) + _add_leading_axes(norm.offset, x)


def _add_leading_axes(parameter: Array, like: Array) -> Array:
    missing = like.ndim - parameter.ndim
    return parameter.reshape((1,) * missing + parameter.shape)


def _gates(x: Float[Array, "N I"], kernel: Float[Array, "I *G H"]) -> Float[Array, "N *G H"]:
    """Multiplies by the matrices of all gates in one product."""
    flat = x @ kernel.reshape(kernel.shape[0], -1)
    return flat.reshape(x.shape[0], *kernel.shape[1:])


def _advance(
    weights: LSTMWeights,
    gates: Float[Array, "N 4 H"],
    c: Float[Array, "N H"],
    forget_bias: float,
    keep: Float[Array, "N H"] | None,
) -> LSTMState:
    """Computes the new state from the gates' preactivations."""
    gates = layer_norm(gates, weights.gate_norm)
    i, g, f, o = (gates[:, gate] for gate in range(4))
    new = jnp.tanh(g)
    if keep is not None:
        new *= keep
    c = jax.nn.sigmoid(f + forget_bias) * c + jax.nn.sigmoid(i) * new
    return LSTMState(c, jax.nn.sigmoid(o) * jnp.tanh(layer_norm(c, weights.cell_norm)))


def lstm_step(
    weights: LSTMWeights,
    state: LSTMState,
    x: Float[Array, "N I"],
    *,
    forget_bias: float = 1.0,
    keep: Float[Array, "N H"] | None = None,
) -> LSTMState:
    """Computes one step of an LSTM.

    y = LN(W_h^y h + W_x^y x + b^y) for y = i, g, f, o,
    c' = σ(f + forget_bias)·c + σ(i)·keep·tanh(g),  h' = σ(o)·tanh(LN(c')).

    Args:
        weights: parameters.
        state: previous state.
        x: float[N, I].
        forget_bias: constant added to the forget gate.
        keep: recurrent dropout's factors on the candidate cell state, 0 or 1/(1 - rate).

    Returns:
        The new state; its `h` is the output.
    """
    gates = _gates(x, weights.input_kernel) + _gates(state.h, weights.hidden_kernel)
    return _advance(weights, gates + weights.bias[None], state.c, forget_bias, keep)


def _scalings(scaling: Scaling, output: Float[Array, "N n"]) -> tuple[Array, Array, Array]:
    """Computes (d_h, d_x, dynamic bias), float[N, *G, H] each."""
    z_h = _gates(output, scaling.to_h) + scaling.to_h_bias[None]
    z_x = _gates(output, scaling.to_x) + scaling.to_x_bias[None]
    z_b = _gates(output, scaling.to_b)

    def expand(z, matrix):
        return jnp.einsum("n...z,...zh->n...h", z, matrix)

    return expand(z_h, scaling.from_h), expand(z_x, scaling.from_x), expand(z_b, scaling.from_b)


def hyper_lstm_step(
    weights: HyperLSTMWeights,
    state: HyperLSTMState,
    x: Float[Array, "N I"],
    *,
    forget_bias: float = 1.0,
    keep: Float[Array, "N H"] | None = None,
    hyper_keep: Float[Array, "N n"] | None = None,
) -> HyperLSTMState:
    """Computes one step of a HyperLSTM.

    y = LN(d_h^y·(W_h^y h) + d_x^y·(W_x^y x) + b^y(z_b^y)) for y = i, g, f, o; then as an LSTM.

    Args:
        weights: parameters.
        state: previous state.
        x: float[N, I].
        forget_bias: constant added to the forget gates of both networks.
        keep: recurrent dropout's factors in the main network.
        hyper_keep: recurrent dropout's factors in the small network.

    Returns:
        The new state; its `main.h` is the output.
    """
    hyper = lstm_step(
        weights.hyper,
        state.hyper,
        jnp.concatenate([x, state.main.h], axis=-1),
        forget_bias=forget_bias,
        keep=hyper_keep,
    )
    d_h, d_x, dynamic = _scalings(weights.scaling, hyper.h)
    gates = d_h * _gates(state.main.h, weights.main.hidden_kernel)
    gates += d_x * _gates(x, weights.main.input_kernel)
    gates += dynamic + weights.main.bias[None]
    main = _advance(weights.main, gates, state.main.c, forget_bias, keep)
    return HyperLSTMState(main, hyper)


def rnn_step(
    weights: RNNWeights, h: Float[Array, "N H"], x: Float[Array, "N I"]
) -> Float[Array, "N H"]:
    """Computes one step of a plain recurrent network, h' = tanh(LN(W_h h + W_x x + b))."""
    total = h @ weights.hidden_kernel + x @ weights.input_kernel + weights.bias[None]
    return jnp.tanh(layer_norm(total, weights.norm))


def hyper_rnn_step(
    weights: HyperRNNWeights, state: HyperRNNState, x: Float[Array, "N I"]
) -> HyperRNNState:
    """Computes one step of a HyperRNN, h' = tanh(LN(d_h·(W_h h) + d_x·(W_x x) + b(z_b))).

    Args:
        weights: parameters.
        state: previous state.
        x: float[N, I].

    Returns:
        The new state; its `main` is the output.
    """
    hyper = rnn_step(weights.hyper, state.hyper, jnp.concatenate([state.main, x], axis=-1))
    d_h, d_x, dynamic = _scalings(weights.scaling, hyper)
    total = d_h * (state.main @ weights.main.hidden_kernel)
    total += d_x * (x @ weights.main.input_kernel) + dynamic + weights.main.bias[None]
    return HyperRNNState(jnp.tanh(layer_norm(total, weights.main.norm)), hyper)


def full_hyper_rnn_step(
    matrices: tuple[Float[Array, "Z H H"], Float[Array, "Z I H"]],
    weights: HyperRNNWeights,
    state: HyperRNNState,
    x: Float[Array, "N I"],
) -> HyperRNNState:
    """Computes one step of a HyperRNN with fully generated matrices.

    h' = tanh(LN(<W_hz, z_h> h + <W_xz, z_x> x + b(z_b))). It needs Z times the memory of row
    scaling, which is the special case <W_hz, z_h> = diag(z_h D_h) W_h.

    Args:
        matrices: W_hz and W_xz, in place of the main network's two matrices and of D_h and D_x.
        weights: parameters; of the main network only the bias and normalisation are used.
        state: previous state.
        x: float[N, I].
    """
    hyper = rnn_step(weights.hyper, state.hyper, jnp.concatenate([state.main, x], axis=-1))
    scaling = weights.scaling
    z_h = hyper @ scaling.to_h + scaling.to_h_bias[None]
    z_x = hyper @ scaling.to_x + scaling.to_x_bias[None]
    total = jnp.einsum("nz,ni,zij->nj", z_h, state.main, matrices[0])
    total += jnp.einsum("nz,ni,zij->nj", z_x, x, matrices[1])
    total += (hyper @ scaling.to_b) @ scaling.from_b + weights.main.bias[None]
    return HyperRNNState(jnp.tanh(layer_norm(total, weights.main.norm)), hyper)
