"""adaptive-nets evaluate: error of a stored network."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import tyro

from adaptive_nets.errors import UserError
from adaptive_nets.training.config import require
from experiments.commands.parsing import parse


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measures error and loss of a network from a file on the test part of a data set."""

    model: tyro.conf.Positional[str]
    """Name of the network, see 'adaptive-nets models'."""
    weights: Path
    """File that a run has written: pruned.safetensors or network.safetensors."""
    data: str
    """Name of the data set, see 'adaptive-nets data list'."""
    batch_size: int = 1000
    """Images per step."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets where not given."""
    json: bool = False
    """Print JSON instead of lines."""


def main(arguments: Sequence[str]) -> None:
    """Prints error, loss, parameters and multiply-accumulates."""
    options = parse(Evaluate, arguments, program="adaptive-nets evaluate")
    require(options.batch_size > 0, "batch-size", options.batch_size, "a positive number")
    import jax.numpy as jnp

    from adaptive_nets import count_macs, count_params, create_model
    from adaptive_nets.analysis.parameters import abstract_variables
    from adaptive_nets.data.device import DeviceSplit
    from adaptive_nets.data.sources import load
    from adaptive_nets.models import model_entry
    from adaptive_nets.models.weights import check_fits, load_network
    from adaptive_nets.training.evaluation import make_evaluate

    name = model_entry(options.model).name
    stored = load_network(options.weights)
    if stored.model != name:
        raise UserError(
            f"--weights {options.weights} is of the network {stored.model!r}; "
            f"expected one of {name!r}"
        )
    dataset = load(options.data, root=options.data_dir, splits=("test",))
    test = dataset.test
    assert test is not None
    if dataset.num_classes != stored.num_classes:
        raise UserError(
            f"--data {options.data} has {dataset.num_classes} classes; {options.weights} has "
            f"{stored.num_classes}"
        )
    model = create_model(name, num_classes=stored.num_classes)
    shape = test.images.shape[1:]
    expected = abstract_variables(model, shape)  # pyright: ignore[reportArgumentType]
    check_fits(stored.variables, expected, source=f"--weights {options.weights}")
    split = DeviceSplit(
        images=jnp.asarray(test.images),
        labels=jnp.asarray(test.labels),
        offset=jnp.asarray(stored.normalisation.offset),
        scale=jnp.asarray(stored.normalisation.scale),
        pixel_scale=jnp.float32(stored.normalisation.pixel_scale),
    )
    result = make_evaluate(model, batch_size=options.batch_size)(stored.variables, split)
    report = {
        "model": name,
        "weights": str(options.weights),
        "data": dataset.name,
        "images": int(result["count"]),
        "error_percent": 100 * result["error"],
        "loss_nats": result["nll"],
        "parameters": count_params(name, num_classes=stored.num_classes),
        "stored_weights": stored.stored_weights,
        "file_bytes": options.weights.stat().st_size,
        "macs": count_macs(name, num_classes=stored.num_classes),
    }
    if options.json:
        print(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"{key.replace('_', ' '):<15}{shown}")
