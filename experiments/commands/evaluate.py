"""adaptive-nets evaluate: error of a stored network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import EvalBatch
from experiments.commands.output import show_fields
from experiments.commands.parsing import parse

EXAMPLES = (
    "adaptive-nets evaluate lenet5_caffe --weights network.safetensors --data mnist",
    "adaptive-nets evaluate resnet20_cifar10 --weights resnet20.th --data cifar10 --json",
)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measures error and loss of a network from a file on the test part of a data set."""

    model: tyro.conf.Positional[str]
    """Name of the network, see 'adaptive-nets models'."""
    weights: Path
    """File of a run (pruned.safetensors, network.safetensors), or a PyTorch state dict."""
    data: str
    """Name of the data set, see 'adaptive-nets data list'."""
    mean: tuple[float, ...] | None = None
    """Mean per channel of pixels from 0 to 1, for a state dict; ImageNet's if not given."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, for a state dict; ImageNet's if not given."""
    execution: Literal["dense", "skipping"] = "dense"
    """Form of a network of adaptive depth: skipping computes active positions only."""
    batch_size: EvalBatch = 1000
    """Images per step."""
    data_dir: Path | None = None
    """Data root; $ADAPTIVE_NETS_DATA or ~/.cache/adaptive_nets if not given."""
    json: bool = False
    """Print JSON instead of lines."""


def _read(options: Evaluate, name: str) -> tuple[Any, str]:
    """Loads the stored network; returns it with the origin of its normalisation."""
    from adaptive_nets import create_model
    from adaptive_nets.models.adaptive.weights import check_halting_rule
    from adaptive_nets.models.weights import files as weight_files
    from adaptive_nets.models.weights.stored import load_network

    if not options.weights.exists() or weight_files.is_native_format(options.weights):
        stored = load_network(options.weights)
        if stored.model != name:
            halting = getattr(create_model(name), "halting", None)
            if halting is not None:
                params, source = stored.variables["params"], f"--weights {options.weights}"
                check_halting_rule(params, halting.rule, source=source)
            raise UserError(
                f"--weights {options.weights} is of the network {stored.model!r}; "
                f"expected one of {name!r}"
            )
        if options.mean is not None or options.std is not None:
            raise UserError(
                f"--mean and --std are for state dicts; {options.weights} stores its "
                "normalisation, so leave them out"
            )
        return stored, "stored with the weights"
    normalisation = weight_files.resolve_normalisation(name, options.mean, options.std)
    stored = weight_files.load_foreign(options.weights, name, normalisation=normalisation)
    return stored, normalisation.origin


def _check_images(model: Any, stored: Any, shape: tuple[int, int, int], *, where: str) -> None:
    """Raises `UserError` unless the network, with these weights, takes images of this size."""
    import jax
    import jax.numpy as jnp

    from adaptive_nets.models import model_entry

    entry = model_entry(stored.model)
    expected = "x".join(map(str, entry.input_shape))
    found = "x".join(map(str, shape))
    if shape[-1] == entry.input_shape[-1]:
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        try:
            jax.eval_shape(
                lambda variables, x: model.apply(variables, x, train=False), stored.variables, image
            )
        except Exception as error:
            raise UserError(
                f"{where} has images of {found}; {entry.name} expects {expected}"
            ) from error
        return
    raise UserError(f"{where} has images of {found}; {entry.name} expects {expected}")


def main(arguments: Sequence[str]) -> None:
    """Prints error, loss, parameters and multiply-accumulates."""
    options = parse(Evaluate, arguments, program="adaptive-nets evaluate", examples=EXAMPLES)
    import jax.numpy as jnp
    import numpy as np

    from adaptive_nets import create_model
    from adaptive_nets.analysis import count_macs, count_params
    from adaptive_nets.analysis.parameters import abstract_variables
    from adaptive_nets.data.device import DeviceSplit
    from adaptive_nets.data.sources import load
    from adaptive_nets.data.streams import StreamOptions
    from adaptive_nets.models import model_entry
    from adaptive_nets.models.weights.stored import check_fits
    from adaptive_nets.training.classification import classification_task
    from adaptive_nets.training.config import MeshConfig
    from adaptive_nets.training.evaluation import make_evaluate
    from adaptive_nets.training.mesh import batch_sharding, eval_batch_size, make_mesh
    from adaptive_nets.training.streamed import BatchMaker, make_streamed_evaluate

    entry = model_entry(options.model)
    skipping = options.execution == "skipping"
    if skipping and "execution" not in entry.overrides:
        raise UserError(
            f"--execution is 'skipping'; expected 'dense': {entry.name} has no skipping form"
        )
    stored, origin = _read(options, entry.name)
    dataset = load(options.data, root=options.data_dir, splits=("test",))
    if dataset.num_classes != stored.num_classes:
        raise UserError(
            f"--data {options.data} has {dataset.num_classes} classes; {options.weights} has "
            f"{stored.num_classes}"
        )
    overrides = dict(stored.note.get("overrides", {}))
    if skipping:
        overrides["execution"] = options.execution
    model = create_model(entry.name, num_classes=stored.num_classes, **overrides)
    check_fits(
        stored.variables,
        abstract_variables(model, entry.input_shape),
        source=f"--weights {options.weights}",
    )
    test = dataset.test
    shape = entry.input_shape if test is None else test.images.shape[1:]
    _check_images(model, stored, (shape[0], shape[1], shape[2]), where=f"--data {options.data}")
    variables: Any = stored.variables
    if skipping:
        variables = model.fold(variables)  # pyright: ignore[reportAttributeAccessIssue]
    normalisation = stored.normalisation
    constants = (normalisation.offset, normalisation.scale, np.float32(normalisation.pixel_scale))
    task = classification_task(model)
    if test is None:
        mesh = make_mesh(MeshConfig())
        size = eval_batch_size(mesh, options.batch_size)
        sharding = batch_sharding(mesh)
        split = dataclasses.replace(dataset.streams["test"], image_shape=shape)
        result = make_streamed_evaluate(
            task,
            BatchMaker(size, sharding, constants, per_image=normalisation.per_image),
            batch_size=size,
            sharding=sharding,
            options=StreamOptions(threads=16),
        )(variables, split)
    else:
        split = DeviceSplit(
            {name: jnp.asarray(array) for name, array in test.arrays.items()},
            *(jnp.asarray(constant) for constant in constants),
            per_image=normalisation.per_image,
        )
        result = make_evaluate(task, batch_size=options.batch_size)(variables, split)
    _check_finite(result, where=f"--weights {options.weights} on --data {options.data}")
    report = {
        "model": entry.name,
        "weights": str(options.weights),
        "data": dataset.name,
        "execution": options.execution,
        "images": int(result["count"]),
        "error_percent": 100 * result["error"],
        "loss_nats": result["nll"],
        "parameters": count_params(model, input_shape=shape),
        "stored_weights": stored.stored_weights,
        "file_bytes": options.weights.stat().st_size,
        "macs": count_macs(model, input_shape=shape),
        "normalisation": {
            "origin": origin,
            "pixel_scale": stored.normalisation.pixel_scale,
            "per_image": stored.normalisation.per_image,
            **_described(stored.normalisation),
        },
    }
    show_fields(report, as_json=options.json)


def _check_finite(result: Mapping[str, float], *, where: str) -> None:
    """Raises `UserError` if a measured value is not finite."""
    for name, value in result.items():
        if not math.isfinite(value):
            raise UserError(
                f"{where} gives {name} {value}; expected a finite number: numbers overflow in the "
                "network, or its normalisation is another one"
            )


def _described(normalisation: Any) -> dict[str, Any]:
    """Returns mean and deviation of a normalisation; 'an image' for a mean per pixel."""
    offset, scale = normalisation.offset, normalisation.scale
    if offset.shape[:2] != (1, 1):
        mean: Any = "an image"
    else:
        mean = [round(float(value), 6) for value in offset.ravel()]
    return {"mean": mean, "std": [round(float(1 / value), 6) for value in scale.ravel()]}
