"""Character models on the Penn Treebank, enwik8 and the text that comes with Python."""

from __future__ import annotations

from typing import Any

from adaptive_nets.data.text import EMBEDDED
from adaptive_nets.training.config import OptimiserConfig, RunConfig, ScheduleConfig
from experiments.papers.zoo.configs.presets import OFTEN, changed
from experiments.papers.zoo.fields import CharConfig, CharOptions, TextConfig
from experiments.suite.experiment import Bound, Experiment, Preset

_RUNNER = "experiments.papers.zoo.characters:run"
_QUICK_RUN = RunConfig(log_every="2%", eval_every="10%", checkpoint_every="10%")
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%")
_SMALL = {"hidden": 256, "hyper_hidden": 64}

_STATELESS = "Training sequences start from a zero state; the test text is read with its state."
_LENGTH = "The paper does not state the length of training; ours is {length}, at a constant rate."
_ENWIK8 = (
    "Batch size 128, Adam 0.001 and clipping at 1, as on the Penn Treebank; the paper's values are "
    "not known to us."
)
_OURS = (
    "The paper has no row of this text, which comes with Python; recipe and sizes of the preset "
    "paper are those of the Penn Treebank.",
)


def _experiment(
    row: str, title: str, model: str, *, corpus: str, length: str, deviations: tuple[str, ...] = ()
) -> Experiment:
    config = CharConfig(
        data=TextConfig(name=corpus, length=250 if corpus == "enwik8" else 100),
        network=CharOptions(name=model),
        optimiser=OptimiserConfig(clip_norm=1.0),
        schedule=ScheduleConfig(length=length, kind="constant"),
        run=OFTEN,
    )
    ours = corpus == EMBEDDED
    brief: dict[str, Any] = {"schedule": {"length": "3000 steps"}, "data": {"batch_size": 32}}
    smoke = {
        "data": {
            "name": EMBEDDED, "batch_size": 8, "eval_batch_size": 16, "length": 20,
            "train_limit": 20_000, "test_limit": 2_000,
        },
        "network": {"hidden": 16, "hyper_hidden": 8},
        "schedule": {"length": "4 steps"},
    }  # fmt: skip
    return Experiment(
        id=f"zoo.{row}",
        title=title,
        row=row,
        presets={
            "smoke": Preset(changed(config, {**smoke, "run": vars(_SMOKE_RUN)})),
            "quick": Preset(
                changed(config, {**brief, "network": _SMALL, "run": vars(_QUICK_RUN)}),
                seeds=2 if ours else 1,
            ),
            "paper": Preset(config, bounds=(Bound("bits", 0.5, 3),)),
        },
        runner=_RUNNER,
        data="python-topics, which comes with Python" if ours else corpus,
        deviations=(_STATELESS, *deviations, *(_OURS if ours else ())),
        measures=() if ours else ("bits", "params"),
    )


def _published(row: str, title: str, model: str) -> Experiment:
    enwik8 = model.endswith("enwik8")
    length = "20 epochs" if enwik8 else "100 epochs"
    return _experiment(
        f"characters.{row}",
        f"{title} on {'enwik8' if enwik8 else 'the Penn Treebank'}",
        model,
        corpus="enwik8" if enwik8 else "ptb",
        length=length,
        deviations=(_LENGTH.format(length=length), *((_ENWIK8,) if enwik8 else ())),
    )


_KINDS = {
    "lstm": ("LSTM", "lstm_1000_ptb"),
    "layernorm-lstm": ("layer-norm LSTM", "layernorm_lstm_1000_ptb"),
    "hyperlstm": ("HyperLSTM", "hyperlstm_1000_ptb"),
    "layernorm-hyperlstm": ("layer-norm HyperLSTM", "layernorm_hyperlstm_1000_ptb"),
}

EXPERIMENTS = (
    *(
        _experiment(
            f"text.{kind}", f"{title} on the documentation of Python", model,
            corpus=EMBEDDED, length="100 epochs",
        )
        for kind, (title, model) in _KINDS.items()
    ),
    *(_published(f"ptb-{kind}-1000", title, model) for kind, (title, model) in _KINDS.items()),
    _published("ptb-lstm-1250", "LSTM of 1250 units", "lstm_1250_ptb"),
    _published(
        "ptb-layernorm-hyperlstm-1000-z16", "layer-norm HyperLSTM with embeddings of 16",
        "layernorm_hyperlstm_1000_z16_ptb",
    ),
    _published("enwik8-lstm-1800", "LSTM", "lstm_1800_enwik8"),
    _published("enwik8-hyperlstm-1800", "HyperLSTM", "hyperlstm_1800_enwik8"),
    _published(
        "enwik8-layernorm-hyperlstm-1800", "layer-norm HyperLSTM",
        "layernorm_hyperlstm_1800_enwik8",
    ),
    _published(
        "enwik8-layernorm-hyperlstm-2048", "layer-norm HyperLSTM of 2048 units",
        "layernorm_hyperlstm_2048_enwik8",
    ),
)  # fmt: skip
