"""adaptive-nets predict: classes of image files, by a trained network."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from adaptive_nets.data.image_files import find_images, passed_over, read_image
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import Count
from experiments.commands.network_flags import check_network_flags
from experiments.commands.output import is_terminal, print_json, print_lines
from experiments.commands.parsing import parse, print_error

PROGRAM = "adaptive-nets predict"
EXAMPLES = ("adaptive-nets predict digit.png --run runs/{id}/quick --invert",)
_BATCH = 64
# A border brighter than this is a bright background.
_BRIGHT = 127


@dataclasses.dataclass(frozen=True)
class Predict:
    """Classifies image files with a trained network.

    The network is that of a run (--run), or a network of the zoo with weights from a file (--model,
    --weights).
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; a folder stands for all images in it."""
    run: Path | None = None
    """Folder of a finished run, such as runs/ID/quick, or a file that a run exported."""
    model: str | None = None
    """With --weights: name of the network, see 'adaptive-nets models'."""
    weights: Path | None = None
    """With --model: file of a run, or a PyTorch or safetensors state dict."""
    mean: tuple[float, ...] | None = None
    """Mean per channel of pixels from 0 to 1, for a state dict; ImageNet's if not given."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel, for a state dict; ImageNet's if not given."""
    data: str | None = None
    """Data set with the class names, if the network does not store them."""
    top: Count = 5
    """Number of classes to print, the most probable first."""
    invert: bool = False
    """Invert the images: MNIST has white strokes on black, not ink on paper."""
    budget: float | None = None
    """Mean FLOPs per image to spend or, up to 2, their share of the plain network's; for networks
    of adaptive depth."""
    calibration: Path | None = None
    """With --budget: file of save_calibration; the images themselves calibrate if not given."""
    json: bool = False
    """Print JSON."""


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Prediction of a network for one image.

    Attributes:
        image: image file.
        probabilities: float[K], probability of each class.
        units: mean number of units per position in each block; empty for a network of fixed depth.
        flops: FLOPs of the image, 2 per multiply-accumulate; None for a network of fixed depth.
        plain_flops: FLOPs per image of the plain network, which runs all units; None likewise.
    """

    image: Path
    probabilities: np.ndarray
    units: tuple[float, ...] = ()
    flops: int | None = None
    plain_flops: int | None = None

    def best(self, count: int) -> list[int]:
        """Returns the labels of the most probable classes."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


def classify(
    model: Any,
    variables: Any,
    inputs: np.ndarray,
    files: Sequence[Path],
    *,
    budget: float | None = None,
    calibration: Path | None = None,
) -> list[Prediction]:
    """Runs a network on prepared images.

    Args:
        model: network that classifies.
        variables: variables of the network.
        inputs: float32[N, H, W, C], normalised.
        files: files of the N images.
        budget: mean FLOPs per image, or a share of the plain network's; None for no budget.
        calibration: file of the calibration; None to calibrate on the images.

    Raises:
        UserError: the budget is out of range, or the network has fixed depth.
    """
    import jax

    from adaptive_nets.models import full_output
    from adaptive_nets.models.adaptive.cost import flops_per_image, plain_flops

    forward: Any = jax.jit(functools.partial(full_output, model))
    size = min(_BATCH, len(files))
    if budget is not None:
        forward = _at_budget(model, variables, inputs, budget, calibration, size)
    predictions: list[Prediction] = []
    for start in range(0, len(files), size):
        part = inputs[start : start + size]
        count = len(part)
        # The last batch is padded, so that one shape is compiled.
        batch = np.concatenate([part, np.repeat(part[-1:], size - count, axis=0)])
        output = forward(variables, batch)
        probabilities = np.asarray(jax.nn.softmax(output.logits.astype(np.float32)))
        blocks = [np.asarray(b.num_units).reshape(size, -1).mean(1) for b in output.blocks]
        flops = plain = None
        if blocks:
            flops = flops_per_image(model, output, image_size=batch.shape[1:3])
            plain = plain_flops(model, output, image_size=batch.shape[1:3])
        for i in range(count):
            predictions.append(
                Prediction(
                    files[start + i],
                    probabilities[i],
                    tuple(float(units[i]) for units in blocks),
                    None if flops is None else int(flops[i]),
                    plain,
                )
            )
    return predictions


def _at_budget(
    model: Any,
    variables: Any,
    inputs: Any,
    budget: float,
    calibration: Path | None,
    batch_size: int,
) -> Callable[[Any, Any], Any]:
    """Returns the network at a budget, calibrated by a file or on the inputs."""
    from adaptive_nets.halting import check_budget, load_calibration
    from adaptive_nets.models import calibrate_budget, with_budget

    if not hasattr(model, "block_costs"):
        raise UserError(
            f"--budget {budget:g} is for networks of adaptive depth; {type(model).__name__} has "
            "fixed depth, so leave it out"
        )
    if calibration is not None:
        table = load_calibration(calibration)
    else:
        table = calibrate_budget(model, variables, inputs, batch_size=batch_size)
    try:
        check_budget(table, budget)
    except UserError as error:
        raise UserError(f"--{error}") from None
    network = with_budget(model, variables, table)
    return lambda _, batch: network(batch, budget)


def _load(options: Predict) -> tuple[Any, Any, dict[str, Any]]:
    """Returns the network that the flags name.

    Raises:
        UserError: the flags name no network, or two.
    """
    check_network_flags(
        PROGRAM, "--run DIR", options.run, options.model, options.weights, options.mean, options.std
    )
    from adaptive_nets.models.weights.trained import load_run, load_weights

    if options.run is not None:
        return load_run(options.run)
    assert options.model is not None
    assert options.weights is not None
    return load_weights(options.weights, options.model, mean=options.mean, std=options.std)


def _class_names(options: Predict, config: dict[str, Any]) -> tuple[str, ...] | None:
    """Returns the class names by label; None if they are unknown."""
    if options.data is None:
        return config["class_names"]
    from adaptive_nets.data.catalogue import lookup
    from adaptive_nets.models.weights.trained import class_names

    names = class_names(lookup(options.data).name) or ()
    outputs = config["model"]["num_classes"]
    if len(names) != outputs:
        raise UserError(
            f"--data {options.data} has {len(names)} classes; the network has {outputs}"
        )
    return names


def _note_bright_backgrounds(pixels: np.ndarray, files: Sequence[Path], data: str | None) -> None:
    """Warns about images with a bright background, if the network expects a dark one."""
    border = np.ones(pixels.shape[1:3], bool)
    border[1:-1, 1:-1] = False
    bright = np.median(pixels[:, border], axis=(1, 2)) > _BRIGHT
    if bright.any():
        more = f" and {bright.sum() - 1} more" if bright.sum() > 1 else ""
        print_error(
            f"{files[int(np.argmax(bright))]}{more}: bright background; a network of {data} "
            "expects bright strokes on black, --invert inverts the images"
        )


def main(arguments: Sequence[str]) -> None:
    """Prints the most probable classes of every image."""
    options = parse(Predict, arguments, program=PROGRAM, examples=EXAMPLES)
    if not options.images:
        raise UserError(f"{PROGRAM} expects image files or folders (see: {PROGRAM} --help)")
    skipped: Counter[str] = Counter()
    files = find_images(options.images, skipped)
    if skipped:
        print_error(f"passed over: {passed_over(skipped)}")
    model, variables, config = _load(options)
    names = _class_names(options, config)
    shape, data = config["input_shape"], config.get("data", {}).get("name")
    if len(shape) != 3 or shape[-1] not in (1, 3):
        raise UserError(
            f"{config['model']['name']} takes inputs of {'x'.join(map(str, shape))}; expected a "
            "network that classifies grey or colour images"
        )
    pixels = np.stack([read_image(file, shape, invert=options.invert) for file in files])
    if data in ("mnist", "notmnist", "fashion_mnist") and not options.invert:
        _note_bright_backgrounds(pixels, files, data)

    from adaptive_nets.models.weights.trained import prepare_images

    if options.calibration is not None and options.budget is None:
        raise UserError(
            f"--calibration {options.calibration} is for --budget; give a budget, or leave it out"
        )
    predictions = classify(
        model, variables, prepare_images(pixels, config), files,
        budget=options.budget, calibration=options.calibration,
    )  # fmt: skip
    whole = predictions[0].plain_flops
    if options.json:
        print_json(as_json(predictions, options, config, names, whole))
    elif is_terminal():
        _print_for_people(predictions, options.top, names, whole)
    else:
        _print_lines(predictions, options.top, names, whole)


def as_json(
    predictions: Sequence[Prediction],
    options: Predict,
    config: dict[str, Any],
    names: tuple[str, ...] | None,
    whole: int | None,
) -> dict[str, Any]:
    """Returns predictions as JSON values."""
    images = []
    for prediction in predictions:
        entry: dict[str, Any] = {
            "image": str(prediction.image),
            "classes": [
                {
                    "label": label,
                    "name": _name(names, label),
                    "probability": float(prediction.probabilities[label]),
                }
                for label in prediction.best(options.top)
            ],
        }
        if prediction.flops is not None and whole is not None:
            entry |= {
                "units": list(prediction.units),
                "flops": prediction.flops,
                "plain_flops": whole,
                "share_of_plain": prediction.flops / whole,
            }
        images.append(entry)
    return {
        "model": config["model"]["name"],
        "network": str(options.run or options.weights),
        "data": config.get("data", {}).get("name"),
        "input_shape": list(config["input_shape"]),
        "inverted": options.invert,
        "images": images,
    }


def _name(names: tuple[str, ...] | None, label: int) -> str:
    return names[label] if names else f"class {label}"


def _print_for_people(
    predictions: Sequence[Prediction], top: int, names: tuple[str, ...] | None, whole: int | None
) -> None:
    for prediction in predictions:
        print(prediction.image)
        for label in prediction.best(top):
            print(f"  {100 * prediction.probabilities[label]:5.1f} %  {_name(names, label)}")
        if prediction.flops is not None and whole is not None:
            units = " + ".join(f"{value:.2f}" for value in prediction.units)
            share = 100 * prediction.flops / whole
            print(
                f"  {units} units, {prediction.flops / 1e6:,.1f} MFLOPs: {share:.0f} % of the "
                "plain network's"
            )


def _print_lines(
    predictions: Sequence[Prediction], top: int, names: tuple[str, ...] | None, whole: int | None
) -> None:
    header = ["image", "rank", "label", "class", "probability"]
    if whole is not None:
        header += ["units", "flops", "plain_flops", "share_of_plain"]
    rows = []
    for prediction in predictions:
        for rank, label in enumerate(prediction.best(top), start=1):
            row = [
                str(prediction.image),
                str(rank),
                str(label),
                _name(names, label),
                f"{prediction.probabilities[label]:.6f}",
            ]
            if prediction.flops is not None and whole is not None:
                row += [
                    f"{sum(prediction.units):.3f}",
                    str(prediction.flops),
                    str(whole),
                    f"{prediction.flops / whole:.4f}",
                ]
            rows.append(row)
    print_lines(header, rows)
