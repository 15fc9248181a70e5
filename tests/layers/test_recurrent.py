"""Recurrent steps against the formulas in float64, and what they start as."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.layers import LSTM, HyperLSTM, HyperRNN
from adaptive_nets.layers.recurrent import Norm, layer_norm
from adaptive_nets.layers.recurrent_cells import LSTMParameters

pytestmark = pytest.mark.core
N, T, INPUTS, H, SMALL, Z = 3, 4, 5, 6, 7, 2
CELLS = {
    "lstm": LSTM(H),
    "lstm normed": LSTM(H, layer_norm=True),
    "hyper lstm": HyperLSTM(H, hyper_hidden=SMALL, embedding_size=Z),
    "hyper lstm normed": HyperLSTM(H, hyper_hidden=SMALL, embedding_size=Z, layer_norm=True),
    "hyper rnn": HyperRNN(H, hyper_hidden=SMALL, embedding_size=Z),
    "hyper rnn normed": HyperRNN(H, hyper_hidden=SMALL, embedding_size=Z, layer_norm=True),
    "hyper rnn full": HyperRNN(H, hyper_hidden=SMALL, embedding_size=Z, full=True),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def normed(x, p, name):
    """Layer normalisation of each gate, or of the only vector."""
    if f"{name}_scale" not in p:
        return x
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-3)
    return centred / deviation * p[f"{name}_scale"] + p[f"{name}_offset"]


def lstm(p, c, h, preactivation):
    """c', h' of gates i, g, f, o before their normalisation."""
    gates = normed(preactivation, p, "gate")
    i, g, f, o = (gates[:, k] for k in range(4))
    c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(normed(c, p, "cell"))


def product(x, matrix):
    return np.einsum("ni,igh->ngh", x, matrix)


def run_lstm(p, x):
    p = p["main"]
    c = h = np.zeros((N, H))
    for t in range(T):
        gates = product(h, p["hidden_kernel"]) + product(x[:, t], p["input_kernel"]) + p["bias"]
        c, h = lstm(p, c, h, gates)
        yield h


def run_hyper_lstm(p, x):
    main, small, scale = p["main"], p["hyper"], p["scaling"]
    c = h = np.zeros((N, H))
    small_c = small_h = np.zeros((N, SMALL))
    for t in range(T):
        both = np.concatenate([x[:, t], h], axis=1)
        gates = product(both, small["input_kernel"]) + product(small_h, small["hidden_kernel"])
        small_c, small_h = lstm(small, small_c, small_h, gates + small["bias"])
        gates = np.zeros((N, 4, H))
        for y in range(4):
            z_h = small_h @ scale["to_h"][:, y] + scale["to_h_bias"][y]
            z_x = small_h @ scale["to_x"][:, y] + scale["to_x_bias"][y]
            z_b = small_h @ scale["to_b"][:, y]
            gates[:, y] = (
                (z_h @ scale["from_h"][y]) * (h @ main["hidden_kernel"][:, y])
                + (z_x @ scale["from_x"][y]) * (x[:, t] @ main["input_kernel"][:, y])
                + z_b @ scale["from_b"][y]
                + main["bias"][y]
            )
        c, h = lstm(main, c, h, gates)
        yield h


def run_hyper_rnn(p, x):
    main, small, scale = p["main"], p["hyper"], p["scaling"]
    h, u = np.zeros((N, H)), np.zeros((N, SMALL))
    for t in range(T):
        total = np.concatenate([h, x[:, t]], axis=1) @ small["input_kernel"]
        total += u @ small["hidden_kernel"] + small["bias"]
        u = np.tanh(normed(total, small, "output"))
        z_h = u @ scale["to_h"] + scale["to_h_bias"]
        z_x = u @ scale["to_x"] + scale["to_x_bias"]
        total = u @ scale["to_b"] @ scale["from_b"] + main["bias"]
        for n in range(N):
            if "hidden_matrices" in p:
                generated = sum(z_h[n, k] * p["hidden_matrices"][k] for k in range(Z))
                total[n] += h[n] @ generated
                total[n] += x[n, t] @ sum(z_x[n, k] * p["input_matrices"][k] for k in range(Z))
            else:
                total[n] += (z_h[n] @ scale["from_h"]) * (h[n] @ main["hidden_kernel"])
                total[n] += (z_x[n] @ scale["from_x"]) * (x[n, t] @ main["input_kernel"])
        h = np.tanh(normed(total, main, "output"))
        yield h


@pytest.fixture(scope="module")
def inputs():
    return jax.random.normal(jax.random.key(4), (N, T, INPUTS))


@functools.cache
def started(name):
    """Variables of a cell, made once; a test must not change them in place."""
    cell = CELLS[name]
    return jax.jit(lambda: cell.init(jax.random.key(5), jnp.zeros((N, T, INPUTS))))()


def copied(name):
    return jax.tree.map(lambda leaf: leaf, started(name)["params"])


@every_cell
def test_steps_are_the_formulas(name, inputs, rng):
    cell = CELLS[name]
    shapes = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs))["params"]
    params = jax.tree.map(lambda leaf: 0.4 * rng.normal(size=leaf.shape), shapes)
    run = {LSTM: run_lstm, HyperLSTM: run_hyper_lstm, HyperRNN: run_hyper_rnn}[type(cell)]
    expected = np.stack(list(run(params, np.asarray(inputs, np.float64))), axis=1)
    outputs, state = cell.apply({"params": jax.tree.map(jnp.float32, params)}, inputs)
    close(outputs, expected, terms=T * (INPUTS + H + SMALL))
    last = {LSTM: lambda s: s.h, HyperLSTM: lambda s: s.main.h, HyperRNN: lambda s: s.main}
    np.testing.assert_array_equal(last[type(cell)](state), outputs[:, -1])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("lstm normed", "hyper lstm") else pytest.mark.slow)
        for n in CELLS
    ],
)
def test_a_sequence_in_pieces_is_the_sequence(name, inputs):
    cell, variables = CELLS[name], started(name)
    whole, last = cell.apply(variables, inputs)
    first, state = cell.apply(variables, inputs[:, :1])
    second, state = cell.apply(variables, inputs[:, 1:], state)
    close(jnp.concatenate([first, second], axis=1), whole, terms=10)
    jax.tree.map(lambda a, b: close(a, b, terms=10), state, last)


@every_cell
def test_low_precision_keeps_float32_parameters(name, inputs):
    cell, variables = CELLS[name].clone(dtype=jnp.bfloat16), started(name)
    made = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(made))
    outputs, state = cell.apply(variables, inputs)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves((outputs, state)))
    wide, _ = CELLS[name].apply(variables, inputs)
    close(outputs, wide, terms=T * (INPUTS + H), dtype=jnp.bfloat16)


def test_every_row_starts_scaled_by_a_tenth(inputs, key):
    """At the start a HyperLSTM is the LSTM with a tenth of its matrices."""
    cell, params = CELLS["hyper lstm"], copied("hyper lstm")
    params["main"]["bias"] = jax.random.normal(key, (4, H))
    tenth = {name: 0.1 * leaf for name, leaf in params["main"].items() if name != "bias"}
    plain = LSTM(H).apply({"params": {"main": {**params["main"], **tenth}}}, inputs)[0]
    close(cell.apply({"params": params}, inputs)[0], plain, terms=50)
    scaling = params["scaling"]
    for name in ("h", "x"):
        start = scaling[f"to_{name}_bias"][:, None, :] @ scaling[f"from_{name}"]
        close(start, np.full((4, 1, H), 0.1), terms=Z)
    assert 0.005 < float(jnp.std(scaling["to_b"])) < 0.02


def test_each_gates_matrix_starts_orthogonal(key):
    weights = LSTMParameters(H).init_with_output(key, H)[0]
    for kernel in (weights.input_kernel, weights.hidden_kernel):
        for gate in range(4):
            matrix = np.asarray(kernel[:, gate], np.float64)
            close(matrix @ matrix.T, np.eye(H), terms=H)
    assert not np.allclose(weights.input_kernel[:, 0], weights.input_kernel[:, 1])


def gradient_is_zero(cell, params, inputs):
    def loss(params):
        return jnp.sum(jnp.cos(cell.apply({"params": params}, inputs)[0]))

    gradient = jax.jit(jax.grad(loss))(params)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.any(leaf)
    }


@pytest.mark.parametrize("name", ["hyper lstm normed", "hyper rnn"])
def test_the_small_network_learns_from_the_second_step_on(name, inputs, key):
    """Projections that start at zero hide it, and D_b hides z_b, until they have moved."""
    cell, params = CELLS[name], copied(name)
    hidden = {f"hyper/{leaf}" for leaf in params["hyper"]} | {"scaling/to_b"}
    assert gradient_is_zero(cell, params, inputs) == hidden
    params["scaling"] = jax.tree.map(
        lambda leaf: leaf + 0.01 * jax.random.normal(key, leaf.shape), params["scaling"]
    )
    assert gradient_is_zero(cell, params, inputs) == set()


@pytest.mark.parametrize("name", ["lstm", "lstm normed", "hyper rnn full"])
def test_gradients_reach_every_other_parameter(name, inputs):
    cell, params = CELLS[name], copied(name)
    hidden = {f"hyper/{leaf}" for leaf in params.get("hyper", ())} | {"scaling/to_b"}
    expected = hidden if "hyper" in params else set()
    assert gradient_is_zero(cell, params, inputs) == expected


def test_layer_norm_of_each_gate(rng):
    x = rng.normal(size=(N, 4, H)) * 3 + 5
    scale, offset = rng.normal(size=(2, 4, H))
    expected = normed(x, {"a_scale": scale, "a_offset": offset}, "a")
    norm = Norm(jnp.float32(scale), jnp.float32(offset))
    close(layer_norm(jnp.float32(x), norm), expected, terms=4 * H)
    assert layer_norm(x, None) is x


@pytest.mark.parametrize("cell", [LSTM(H), HyperLSTM(H, hyper_hidden=SMALL)])
def test_recurrent_dropout_changes_what_is_written_to_memory_at_each_step(cell, key):
    """Inputs do nothing here, so tanh(g) is the same everywhere and only dropout varies."""
    x = jnp.zeros((200, 2, 3))
    params = jax.tree.map(jnp.zeros_like, cell.init(key, x)["params"])
    params["main"]["bias"] = jnp.ones((4, H))
    dropped = cell.clone(dropout_rate=0.25)
    _, state = dropped.apply({"params": params}, x, None, True, rngs={"dropout": key})
    memory = np.asarray(getattr(state, "main", state).c, np.float64)
    # What one step writes, kept with probability 0.75; the first is forgotten by sigmoid(2).
    write = sigmoid(1.0) * np.tanh(1.0) / 0.75
    values = write * np.array([0, 1, sigmoid(2.0), 1 + sigmoid(2.0)])
    shares = [np.mean(np.abs(memory - value) < 1e-5) for value in values]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 16, 3 / 16, 3 / 16, 9 / 16], abs=0.05)
    evaluated, _ = dropped.apply({"params": params}, x)
    np.testing.assert_array_equal(evaluated, cell.apply({"params": params}, x)[0])
