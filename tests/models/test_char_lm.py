"""Character models: published sizes, dropout, and training that begins."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerances import close

from adaptive_nets.models.char_lm import (
    CHAR_MODELS,
    CharModel,
    bits_per_character,
    count_char_params,
    create_char_model,
)
from adaptive_nets.runtime.errors import UserError

pytestmark = pytest.mark.core


def formula(vocabulary, hidden, small=0, size=0, normed=False):
    """The count written out: gates, output layer, small network, embeddings, normalisation."""
    count = 4 * (hidden * (vocabulary + hidden) + hidden) + hidden * vocabulary + vocabulary
    count += 4 * (small * (vocabulary + hidden + small) + small) if small else 0
    count += 4 * (2 * (small * size + size) + small * size) + 12 * hidden * size
    return count + (10 * (hidden + small) if normed else 0)


SIZES = {
    "lstm_1000_ptb": (4_254_050, (50, 1000)),
    "lstm_1250_ptb": (6_567_550, (50, 1250)),
    "layernorm_lstm_1000_ptb": (4_264_050, (50, 1000, 0, 0, True)),
    "hyperlstm_1000_ptb": (4_911_874, (50, 1000, 128, 4)),
    "layernorm_hyperlstm_1000_ptb": (4_923_154, (50, 1000, 128, 4, True)),
    "layernorm_hyperlstm_1000_z16_ptb": (5_085_682, (50, 1000, 128, 16, True)),
    "lstm_1800_enwik8": (14_812_405, (205, 1800)),
    "hyperlstm_1800_enwik8": (18_708_213, (205, 1800, 256, 64)),
    "layernorm_hyperlstm_1800_enwik8": (18_728_773, (205, 1800, 256, 64, True)),
    "layernorm_hyperlstm_2048_enwik8": (26_541_773, (205, 2048, 512, 64, True)),
}


@pytest.mark.parametrize("name", CHAR_MODELS)
def test_published_sizes(name):
    expected, sizes = SIZES[name]
    assert count_char_params(name) == formula(*sizes) == expected


def test_conditions_of_training():
    ptb, enwik8 = CHAR_MODELS["lstm_1000_ptb"], CHAR_MODELS["lstm_1800_enwik8"]
    assert (ptb.sequence_length, ptb.batch_size, ptb.gradient_clip) == (100, 128, 1.0)
    assert enwik8.sequence_length == 250
    model = create_char_model("lstm_1000_ptb")
    assert (model.input_dropout, model.output_dropout, model.recurrent_dropout) == (0.1,) * 3
    model = create_char_model("lstm_1800_enwik8")
    assert (model.input_dropout, model.output_dropout, model.recurrent_dropout) == (0, 0, 0.1)


def test_bad_names_and_overrides():
    with pytest.raises(UserError, match="'lstm_1000_ptp' is unknown; did you mean 'lstm_1000_ptb'"):
        create_char_model("lstm_1000_ptp")
    with pytest.raises(UserError, match="takes no 'hiden'; did you mean 'hidden'"):
        create_char_model("lstm_1000_ptb", hiden=3)
    assert create_char_model("lstm_1000_ptb", hidden=3).hidden == 3


@pytest.fixture(scope="module", params=[0, 5], ids=["lstm", "hyper lstm"])
def small(request):
    model = CharModel(
        vocabulary=7,
        hidden=16,
        layer_norm=True,
        hyper_hidden=request.param,
        input_dropout=0.1,
        output_dropout=0.1,
        recurrent_dropout=0.1,
    )
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 7, (4, 1))) + jnp.arange(9)[None]
    tokens %= 7
    return model, jax.jit(model.init)(jax.random.key(0), tokens[:, :-1]), tokens


def test_the_state_carries_the_text_on(small):
    model, variables, tokens = small
    apply = jax.jit(model.apply)
    whole = apply(variables, tokens)
    first = apply(variables, tokens[:, :4])
    second = apply(variables, tokens[:, 4:], first.state)
    assert whole.logits.shape == (4, 9, 7)
    close(jnp.concatenate([first.logits, second.logits], axis=1), whole.logits, terms=100)


def test_logits_do_not_see_what_comes_next(small):
    model, variables, tokens = small
    changed = tokens.at[:, 5].set((tokens[:, 5] + 1) % 7)
    before, after = (jax.jit(model.apply)(variables, t).logits for t in (tokens, changed))
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.array_equal(before[:, 5:], after[:, 5:])


def test_training_draws_dropout_and_evaluation_does_not(small):
    model, variables, tokens = small
    apply = jax.jit(model.apply, static_argnums=3)
    draws = [
        apply(variables, tokens, None, True, rngs={"dropout": jax.random.key(i)}).logits
        for i in (1, 2)
    ]
    assert not np.array_equal(*draws)
    with pytest.raises(Exception, match="dropout"):
        model.apply(variables, tokens, None, True)
    close(
        apply(variables, tokens, None, False).logits,
        model.apply(variables, tokens).logits,
        terms=100,
    )


@pytest.mark.slow
def test_a_text_that_repeats_is_learnt(small):
    model, variables, tokens = small

    @jax.jit
    def step(params, key):
        def loss(params):
            output = model.apply(
                {"params": params}, tokens[:, :-1], None, True, rngs={"dropout": key}
            )
            return bits_per_character(output.logits, tokens[:, 1:])

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), value

    params, losses = variables["params"], []
    for i in range(60):
        params, value = step(params, jax.random.key(i))
        losses.append(float(value))
    assert losses[0] > 2.0
    assert np.mean(losses[-5:]) < 0.7
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), params, variables["params"])
    assert all(jax.tree.leaves(moved))


def test_bits_per_character_of_a_known_distribution():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.25], [0.125, 0.75, 0.125]]]))
    close(bits_per_character(logits, jnp.array([[0, 2]])), np.float64((1 + 3) / 2), terms=3)
