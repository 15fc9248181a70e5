"""Measures of trained networks: columns of a FractalNet alone, and bits per character."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.data.device import DeviceSplit
from adaptive_nets.models import create_model
from adaptive_nets.models.char_lm import bits_per_character
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.evaluation import make_evaluate
from experiments.suite.experiment import Metric


def parameter_metric(params: Any) -> dict[str, Metric]:
    """Returns the number of trainable parameters, in millions."""
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    return {"params": Metric(count / 1e6, "10^6", 1, f"{count:,} trainable parameters")}


def kernel_metric(params: Any) -> dict[str, Metric]:
    """Returns the number of parameters of the second kernel of the hypernetwork's MNIST network.

    Args:
        params: parameters of a `MnistConvNet`, whose kernel is generated or an ordinary parameter.
    """
    generated = params.get("hypernet")
    leaves = jax.tree.leaves(params["conv2"]["kernel"] if generated is None else generated)
    note = "of the hypernetwork" if generated is not None else "of the kernel"
    return {"kernel_params": Metric(float(sum(leaf.size for leaf in leaves)), "weights", 1, note)}


def column_errors(
    name: str, options: Mapping[str, Any], variables: Any, test: DeviceSplit, *, batch_size: int
) -> dict[str, Metric]:
    """Measures the test error of every column of a FractalNet alone, in the trained network.

    A column is a plain chain of its convolutions, with the weights and the running statistics of
    the whole network.

    Args:
        name: name of the network.
        options: options of `create_model` with which it was built.
        variables: its variables.
        test: test images.
        batch_size: images at a time.

    Returns:
        ``error.column0`` (the shallowest) and so on, and ``deepest_error`` of the last one, %.
    """
    metrics = {}
    for column in range(options["columns"]):
        model = create_model(name, **{**options, "column": column})
        found = make_evaluate(classification_task(model), batch_size=batch_size)(variables, test)
        metrics[f"error.column{column}"] = Metric(
            100 * found["error"], "%", int(found["count"]), f"column {column} alone"
        )
    last = metrics[f"error.column{options['columns'] - 1}"]
    return {**metrics, "deepest_error": last}


def text_bits(
    model: Any, variables: Any, tokens: np.ndarray, *, lanes: int, length: int
) -> tuple[float, int]:
    """Measures a character model on a text, with its state carried along.

    The text is cut into `lanes` equal texts that are read side by side, each from a zero state.

    Args:
        model: a `CharModel`, or a network with its interface.
        variables: variables of the model.
        tokens: int[M], numbers of characters.
        lanes: number of texts.
        length: characters of a compiled step.

    Returns:
        Mean bits per predicted character, and the number of predicted characters. The first
        character is not predicted, nor are fewer than `lanes` at the end.
    """
    lanes = max(1, min(lanes, len(tokens) - 1))
    width = (len(tokens) - 1) // lanes
    inputs, targets = (
        tokens[start : start + lanes * width].reshape(lanes, width) for start in (0, 1)
    )

    @jax.jit
    def step(variables, state, inputs, targets):
        output = model.apply(variables, inputs, state=state, train=False)
        return bits_per_character(output.logits, targets) * targets.size, output.state

    total, state = 0.0, None
    for start in range(0, width, length):
        part = slice(start, min(start + length, width))
        bits, state = step(
            variables, state, jnp.asarray(inputs[:, part], jnp.int32),
            jnp.asarray(targets[:, part], jnp.int32),
        )  # fmt: skip
        total += float(bits)
    return total / targets.size, targets.size
