"""Runs one seed of a character model: trains it and measures bits per character."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.splits import WEIGHT, Dataset
from adaptive_nets.data.text import TOKEN, joined
from adaptive_nets.models.char_lm import CharModel, CharOutput, create_char_model
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.loop import train
from adaptive_nets.training.losses import cross_entropy
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.task import Batch, Task
from experiments.papers.zoo import measures
from experiments.papers.zoo.fields import CharConfig
from experiments.suite.experiment import Metric, Outcome


def run(
    config: CharConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains one model and measures it; see `experiments.suite.experiment.Runner`."""
    text, vocabulary = config.data, dataset.num_classes
    model = create_char_model(
        config.network.name, vocabulary=vocabulary, **config.network.overrides()
    )
    assert dataset.train is not None
    assert dataset.test is not None
    train_tokens, test_tokens = joined(dataset.train), joined(dataset.test)
    progress.show(
        f"{title}: {len(train_tokens):,} training and {len(test_tokens):,} test characters of "
        f"{vocabulary}"
    )
    result = train(
        character_task(model),
        config.training(),
        dataset=dataset,
        directory=directory,
        seed=seed,
        progress=progress,
        title=title,
    )
    variables = result.state.eval_variables
    metrics = measures.parameter_metric(result.state.params)
    # The training part is measured on as many characters as the test part has.
    for name, tokens in (("bits", test_tokens), ("train_bits", train_tokens[: len(test_tokens)])):
        bits, count = measures.text_bits(
            model, variables, tokens, lanes=text.eval_batch_size, length=text.length
        )
        metrics[name] = Metric(bits, "bits", count, f"{dataset.name}, state carried along")
    metrics["characters"] = Metric(float(len(train_tokens)), "characters", 1)
    metrics["vocabulary"] = Metric(float(vocabulary), "characters", 1)
    arrays: dict[str, np.ndarray] = {}
    return Outcome(metrics, arrays, seconds=result.seconds, steps=result.timing.total_steps)


def character_task(model: CharModel) -> Task:
    """Builds the task of predicting every next character of a sequence.

    The loss is the mean cross-entropy, nats; ``bits`` is the same in bits per character.
    """

    def prepare(batch: Batch) -> dict[str, Any]:
        tokens = batch[TOKEN].astype(jnp.int32)
        return {"input": tokens[:, :-1], "target": tokens[:, 1:]}

    def losses(output: CharOutput, batch: Batch) -> Any:
        """Returns the mean loss of each sequence, float32[N], nats."""
        targets = batch["target"]
        flat = output.logits.reshape(-1, output.logits.shape[-1])
        return cross_entropy(flat, targets.reshape(-1)).reshape(targets.shape).mean(axis=1)

    def objective(output, batch, params, step):
        del params, step
        found = losses(output, batch)
        return jnp.mean(found), {"bits": Mean.of(found / math.log(2))}

    def evaluate(output: CharOutput, batch: Batch) -> dict[str, Mean]:
        return {"bits": Mean.of(losses(output, batch) / math.log(2), batch[WEIGHT])}

    return Task(
        model,
        lambda timing: objective,
        evaluate,
        shown=lambda measured: {"test bits": measured["bits"]},
        inputs=lambda batch: batch["input"],
        prepare=prepare,
        streams=("dropout",),
    )
