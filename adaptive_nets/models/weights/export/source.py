"""Trained networks to export, with what a self-contained file of them needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from adaptive_nets.models.normalisation import InputNormalisation
from adaptive_nets.models.registry import model_entry
from adaptive_nets.models.weights.files import (
    is_native_format,
    load_foreign,
    resolve_normalisation,
)
from adaptive_nets.models.weights.locate import find_network
from adaptive_nets.models.weights.stored import load_network, save_network
from adaptive_nets.models.weights.trained import assemble, load_run, load_weights
from adaptive_nets.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """Trained network and its origin.

    Attributes:
        file: file of the weights.
        model: registered name of the network.
        module: the network.
        variables: variables of the network, NumPy arrays.
        config: configuration, see `load_run`.
        note: provenance of the network, with its overrides.
    """

    file: Path
    model: str
    module: nn.Module
    variables: dict[str, Any]
    config: dict[str, Any]
    note: dict[str, Any]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image."""
        return tuple(self.config["input_shape"])

    @property
    def num_classes(self) -> int:
        """Number of outputs."""
        return self.config["model"]["num_classes"]

    @property
    def normalisation(self) -> InputNormalisation:
        """Normalisation of the images."""
        return InputNormalisation(**self.config["normalisation"])

    @property
    def halting_rule(self) -> str | None:
        """Halting rule of a network of adaptive depth; None for one of fixed depth."""
        halting = getattr(self.module, "halting", None)
        return None if halting is None else halting.rule

    @property
    def takes_images(self) -> bool:
        """True if the network takes images, not texts or vectors."""
        return len(self.input_shape) == 3 and self.input_shape[-1] in (1, 3)


def source_of_run(path: str | Path) -> Source:
    """Loads the trained network of a run.

    Args:
        path: folder of a run or of a seed, or a file that a run exported; see `load_run`.

    Raises:
        UserError: there is no finished run, or it has no network.
    """
    file = find_network(path)
    module, variables, config = load_run(file)
    note = load_network(file).note
    return Source(file, config["model"]["name"], module, variables, config, note)


def source_of_weights(
    path: str | Path,
    model: str,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Source:
    """Loads weights from a file of ours or of another tool; see `load_weights`.

    Args:
        path: a file exported by a run, a PyTorch state dict, or safetensors.
        model: name of the network in the zoo.
        mean: mean per channel of pixels in [0, 1], for a file of another tool.
        std: standard deviation per channel, likewise.

    Raises:
        UserError: the file cannot be read or does not fit the network.
    """
    file, name = Path(path).expanduser(), model_entry(model).name
    if file.is_dir() or not file.exists() or is_native_format(file):
        module, variables, config = load_weights(file, model, mean=mean, std=std)
        return Source(file, name, module, variables, config, load_network(file).note)
    stored = load_foreign(file, name, normalisation=resolve_normalisation(name, mean, std))
    module, variables, config = assemble(stored, source=file, record=None)
    return Source(file, name, module, variables, config, stored.note)


def save_source(source: Source, path: str | Path) -> int:
    """Writes a network as a file of its own, which `load_run` reads without a record beside it.

    Kernels are stored as values and gaps if most of their entries are 0.

    Args:
        source: network to write.
        path: file to write, atomically.

    Returns:
        Size of the file in bytes.

    Raises:
        UserError: the file would say less of its inputs than the run does.
    """
    data = source.config.get("data", {}).get("name")
    note = {**source.note, "overrides": dict(source.note.get("overrides", {}))}
    if data is not None:
        note["data"] = data
    size = save_network(
        path,
        model=source.model,
        num_classes=source.num_classes,
        variables=source.variables,
        normalisation=source.normalisation,
        sparse=_share_of_zeros(source.variables) > 0.5,
        note=note,
    )
    found = load_run(path)[2]["input_shape"]
    if tuple(found) != source.input_shape:
        raise UserError(
            f"{path} would be read with inputs of {tuple(found)}, the network takes "
            f"{source.input_shape}; use its folder itself, or --to stablehlo"
        )
    return size


def _share_of_zeros(variables: Any) -> float:
    kernels: list[np.ndarray] = []

    def collect(tree: Any) -> None:
        for name, child in tree.items():
            if hasattr(child, "items"):
                collect(child)
            elif name == "kernel":
                kernels.append(np.asarray(child))

    collect(variables)
    total = sum(kernel.size for kernel in kernels)
    return 1 - sum(int(np.count_nonzero(kernel)) for kernel in kernels) / total if total else 0.0
