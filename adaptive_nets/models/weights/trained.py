"""Trained networks, ready to use: the module, its variables, and how to prepare its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from adaptive_nets.data.catalogue import CATALOGUE
from adaptive_nets.data.image_collections import imagenet_classes
from adaptive_nets.data.image_files import find_images, read_image
from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.registry import ModelEntry, create_model, model_entry
from adaptive_nets.models.shapes import abstract_variables
from adaptive_nets.models.weights.files import (
    is_native_format,
    load_foreign,
    resolve_normalisation,
)
from adaptive_nets.models.weights.locate import RECORD, find_network
from adaptive_nets.models.weights.stored import (
    StoredNetwork,
    check_fits,
    load_network,
)
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.reading import read_json_file

Trained = tuple[nn.Module, dict[str, Any], dict[str, Any]]
"""Module, variables and configuration."""


def load_run(path: str | Path) -> Trained:
    """Loads the trained network of a finished run.

        model, variables, config = an.load_run("runs/ID/quick")
        images = an.prepare_images(["digit.png"], config)
        logits = model.apply(variables, images, train=False)

    Args:
        path: Folder of a run, whose first finished seed counts; folder of a seed; or a file that a
            run exported (network.safetensors, pruned.safetensors).

    Returns:
        The module; its variables, {"params": ...} of NumPy arrays, ready for ``apply``; and a
        nested dictionary: the resolved configuration of the run, as far as its record lies beside
        the network, with the entries

        * ``model``: {"name": ..., "num_classes": ...} and what the record says;
        * ``input_shape``: (H, W, C);
        * ``normalisation``: {"pixel_scale", "offset", "scale", "per_image"}. The network takes
          (pixels / pixel_scale − offset)·scale, not raw pixels; `prepare_images` computes it;
        * ``class_names``: by label, or None where the data set is not known.

    Raises:
        UserError: There is no finished run, it exports no network, or the file is damaged, of
            another program, or of another network than it says.
    """
    file = find_network(path)
    return assemble(load_network(file), source=file, record=_read_record(file.with_name(RECORD)))


def load_weights(
    path: str | Path,
    model: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Trained:
    """Loads trained weights from a file of ours or of another tool, as `load_run` does.

    Args:
        path: A file exported by a run, a PyTorch state dict, or safetensors.
        model: Name of the network in the zoo.
        mean: Mean per channel of pixels in [0, 1], for a file of another tool; the customary one if
            None.
        std: Standard deviation per channel, likewise.

    Raises:
        UserError: The file cannot be read or does not fit the network, or only one of `mean` and
            `std` is given.
    """
    file, entry = Path(path).expanduser(), model_entry(model)
    if file.is_dir():
        raise UserError(f"weights file {file} is a folder; expected a file of trained weights")
    if not file.exists() or is_native_format(file):
        stored = load_network(file)
        if stored.model != entry.name:
            raise UserError(
                f"weights file {file} is of the network {stored.model!r}; "
                f"expected one of {entry.name!r}"
            )
        if mean is not None or std is not None:
            raise UserError(
                f"mean and std are for files of other tools; {file} says how its inputs are "
                "normalised"
            )
        return assemble(stored, source=file, record=_read_record(file.with_name(RECORD)))
    normalisation = resolve_normalisation(entry.name, mean, std)
    stored = load_foreign(file, entry.name, normalisation=normalisation)
    return assemble(stored, source=file, record=None)


def assemble(stored: StoredNetwork, *, source: Path, record: Mapping[str, Any] | None) -> Trained:
    """Returns module, variables and configuration of a stored network.

    Args:
        stored: What its file holds.
        source: The file, for messages.
        record: Of the run that it is from, if any.

    Raises:
        UserError: The variables do not fit the network.
    """
    entry = model_entry(stored.model)
    overrides = dict(stored.note.get("overrides", {}))
    module = create_model(entry.name, num_classes=stored.num_classes, **overrides)
    data = _dataset_name(stored, record, entry)
    shape = _input_shape(stored.normalisation, data, entry)
    check_fits(stored.variables, abstract_variables(module, shape), source=str(source))
    config: dict[str, Any] = {**(record["config"] if record else {})}
    # The record names the network that was trained; a pruned one is stored as a plain network.
    config["model"] = {
        **config.get("model", {}), "name": entry.name, "num_classes": stored.num_classes,
    }  # fmt: skip
    if data is not None:
        config["data"] = {**config.get("data", {}), "name": data}
    config["input_shape"] = shape
    config["normalisation"] = {
        "pixel_scale": stored.normalisation.pixel_scale,
        "offset": stored.normalisation.offset,
        "scale": stored.normalisation.scale,
        "per_image": stored.normalisation.per_image,
    }
    names = class_names(data) if data is not None else None
    config["class_names"] = names if names and len(names) == stored.num_classes else None
    return module, stored.variables, config


def prepare_images(
    images: Iterable[str | Path] | np.ndarray,
    config: Mapping[str, Any],
    *,
    invert: bool = False,
) -> np.ndarray:
    """Returns images as the input of a trained network.

    Args:
        images: Image files, or folders of them, see `adaptive_nets.data.image_files.read_image`; or
            pixels uint8[N, H, W, C] of the network's input shape.
        config: From `load_run`.
        invert: Whether dark and bright change places. MNIST has white strokes on black; ink on
            paper is the opposite.

    Returns:
        float32[N, H, W, C], normalised as the network was trained.

    Raises:
        UserError: A file is not an image, or pixels are of another shape or dtype.
    """
    shape = config["input_shape"]
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.shape[1:] != tuple(shape):
            expected = ", ".join(map(str, shape))
            raise UserError(
                f"images are {images.dtype}{list(images.shape)}; expected uint8[N, {expected}]"
            )
        pixels = 255 - images if invert else images
    else:
        files = find_images([images] if isinstance(images, (str, Path)) else images)
        pixels = np.stack([read_image(file, shape, invert=invert) for file in files])
    return InputNormalisation(**config["normalisation"]).apply(pixels)


def class_names(data: str) -> tuple[str, ...] | None:
    """Returns names of a data set's classes for people; None for an unknown data set."""
    if data not in CATALOGUE:
        return None
    if data == "imagenet":
        return tuple(name for _, name in imagenet_classes())
    return CATALOGUE[data].class_names


def _dataset_name(
    stored: StoredNetwork, record: Mapping[str, Any] | None, entry: ModelEntry
) -> str | None:
    """The data set that a network was trained on, as far as its run or its file says."""
    if record is not None:
        return record["dataset"]["name"]
    if "data" in stored.note:
        return stored.note["data"]
    # Files of other tools do not say; their order of classes is that of the published network.
    if stored.num_classes != entry.num_classes:
        return None
    if entry.num_classes == len(imagenet_classes()):
        return "imagenet"
    return next((name for name in CATALOGUE if entry.name.endswith(f"_{name}")), None)


def _input_shape(
    normalisation: InputNormalisation, data: str | None, entry: ModelEntry
) -> tuple[int, int, int]:
    height, width = normalisation.offset.shape[:2]
    channels = entry.input_shape[-1]
    if (height, width) != (1, 1):
        return height, width, channels
    if data in CATALOGUE and not CATALOGUE[data].streamed:
        return CATALOGUE[data].image_shape
    return entry.input_shape


def _read_record(path: Path) -> dict[str, Any] | None:
    """The record beside a network; None where there is none."""
    try:
        content = read_json_file(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"record {path} cannot be read: {why}") from error
    try:
        assert isinstance(content["config"], dict)
        assert isinstance(content["dataset"]["name"], str)
    except (AssertionError, KeyError, TypeError) as error:
        raise UserError(f"record {path} has no configuration; expected that of a run") from error
    return content
