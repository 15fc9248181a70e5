"""Recurrent character models: LSTM, layer-norm LSTM and HyperLSTM on PTB and enwik8 [ha2016].

Their inputs are characters, not images, so `CHAR_MODELS` lists them outside the model registry.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adaptive_nets.layers.recurrent_cells import LSTM, HyperLSTM
from adaptive_nets.runtime.errors import UserError, did_you_mean


@flax.struct.dataclass
class CharOutput:
    """Output of a character model.

    Attributes:
        logits: float[N, T, V], prediction of the next character at every position.
        state: recurrent state after the last character, the input for the next segment of the same
            texts.
    """

    logits: Float[Array, "N T V"]
    state: Any


class CharModel(nn.Module):
    """Character model: one-hot inputs, one recurrent layer, dense output layer.

    Attributes:
        vocabulary: number of characters V.
        hidden: units of the recurrent layer.
        layer_norm: whether the recurrent layer is layer-normalised.
        hyper_hidden: units of the HyperLSTM's small network; 0 for a plain LSTM.
        embedding_size: embedding size Z of the HyperLSTM.
        input_dropout: dropout rate of the inputs in training (stream ``dropout``).
        output_dropout: dropout rate of the recurrent layer's outputs.
        recurrent_dropout: dropout rate of the cell update, redrawn at every step.
        hyper_recurrent_dropout: whether recurrent dropout applies to the HyperLSTM's small network.
        dtype: dtype of the computation.
    """

    vocabulary: int
    hidden: int
    layer_norm: bool = False
    hyper_hidden: int = 0
    embedding_size: int = 4
    input_dropout: float = 0.0
    output_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    hyper_recurrent_dropout: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "N T"], state: Any = None, train: bool = False
    ) -> CharOutput:
        """Computes the logits of every next character and the final recurrent state."""
        x = jax.nn.one_hot(tokens, self.vocabulary, dtype=self.dtype)
        x = nn.Dropout(self.input_dropout)(x, deterministic=not train)
        options = {
            "layer_norm": self.layer_norm,
            "dropout_rate": self.recurrent_dropout,
            "dtype": self.dtype,
        }
        if self.hyper_hidden:
            hyper_dropout = self.recurrent_dropout if self.hyper_recurrent_dropout else 0.0
            cell = HyperLSTM(
                self.hidden,
                hyper_hidden=self.hyper_hidden,
                embedding_size=self.embedding_size,
                hyper_dropout_rate=hyper_dropout,
                name="hyper_lstm",
                **options,
            )
        else:
            cell = LSTM(self.hidden, name="lstm", **options)
        outputs, state = cell(x, state, train)
        outputs = nn.Dropout(self.output_dropout)(outputs, deterministic=not train)
        return CharOutput(nn.Dense(self.vocabulary, dtype=self.dtype, name="fc")(outputs), state)


@dataclasses.dataclass(frozen=True)
class CharEntry:
    """Published model and its stated training conditions.

    Attributes:
        options: attribute values of `CharModel`.
        sequence_length: characters in a training sequence.
        batch_size: sequences in a batch; None if not stated.
        learning_rate: learning rate of Adam; None if not stated.
        gradient_clip: bound on the gradient; None if not stated.
    """

    options: dict[str, Any]
    sequence_length: int
    batch_size: int | None = None
    learning_rate: float | None = None
    gradient_clip: float | None = None


def _ptb(hidden: int, **options: Any) -> CharEntry:
    options |= dict.fromkeys(("input_dropout", "output_dropout", "recurrent_dropout"), 0.1)
    return CharEntry({"vocabulary": 50, "hidden": hidden, **options}, 100, 128, 1e-3, 1.0)


def _enwik8(hidden: int, **options: Any) -> CharEntry:
    options |= {"recurrent_dropout": 0.1}
    return CharEntry({"vocabulary": 205, "hidden": hidden, **options}, 250)


# The paper states 205 characters for enwik8; 50 for PTB follows from the published model sizes.
CHAR_MODELS: dict[str, CharEntry] = {
    "lstm_1000_ptb": _ptb(1000),
    "lstm_1250_ptb": _ptb(1250),
    "layernorm_lstm_1000_ptb": _ptb(1000, layer_norm=True),
    "hyperlstm_1000_ptb": _ptb(1000, hyper_hidden=128),
    "layernorm_hyperlstm_1000_ptb": _ptb(1000, hyper_hidden=128, layer_norm=True),
    "layernorm_hyperlstm_1000_z16_ptb": _ptb(
        1000, hyper_hidden=128, embedding_size=16, layer_norm=True
    ),
    "lstm_1800_enwik8": _enwik8(1800),
    "hyperlstm_1800_enwik8": _enwik8(1800, hyper_hidden=256, embedding_size=64),
    "layernorm_hyperlstm_1800_enwik8": _enwik8(
        1800, hyper_hidden=256, embedding_size=64, layer_norm=True
    ),
    "layernorm_hyperlstm_2048_enwik8": _enwik8(
        2048, hyper_hidden=512, embedding_size=64, layer_norm=True
    ),
}


def create_char_model(name: str, **overrides: Any) -> CharModel:
    """Creates a published character model by name.

    Args:
        name: one of `CHAR_MODELS`.
        **overrides: attributes of `CharModel` that replace the published ones.

    Raises:
        UserError: the name or an override is unknown.
    """
    if name not in CHAR_MODELS:
        raise UserError(f"character model {name!r} is unknown; {did_you_mean(name, CHAR_MODELS)}")
    known = [f.name for f in dataclasses.fields(CharModel) if f.name not in ("parent", "name")]
    for override in overrides:
        if override not in known:
            raise UserError(
                f"character model {name!r} takes no {override!r}; {did_you_mean(override, known)}"
            )
    return CharModel(**(CHAR_MODELS[name].options | overrides))


def count_char_params(name: str, **overrides: Any) -> int:
    """Counts the trainable parameters of a character model without running it.

    Args:
        name: one of `CHAR_MODELS`.
        **overrides: overrides of `create_char_model`.
    """
    model = create_char_model(name, **overrides)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    )
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def bits_per_character(
    logits: Float[Array, "N T V"], targets: Int[Array, "N T"]
) -> Float[Array, ""]:
    """Computes the mean cross-entropy in bits, -log2 p(target), in float32.

    Args:
        logits: float[N, T, V].
        targets: int[N, T], the true next characters.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)
    return -jnp.mean(chosen) / math.log(2)
