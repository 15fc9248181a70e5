"""Priors of kernels that a run leaves for others: networks and source slices of every size."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaptive_nets.ensembling.stores import read_arrays, write_arrays
from adaptive_nets.layers.kernel_vae import KernelVAE, kernel_vae
from adaptive_nets.models.weights.kernel_priors import load_prior, save_prior
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.variational.deep_weight_prior import (
    SliceGaussian,
    fit_gaussian,
    prior_initializer,
    sample_slices,
    slices_initializer,
)
from adaptive_nets.variational.deep_weight_prior.sampling import Draw, KernelInitializer
from experiments.papers.dwp.fields import REQUIRED_PRIORS
from experiments.suite.run_inputs import RANDOM, resolve

Size = tuple[int, int]
# Slices of an untrained prior, in place of source slices.
_DRAWN = 20_000


def size_text(size: tuple[int, ...]) -> str:
    """Formats a kernel size: "7x7"."""
    return "x".join(map(str, size))


@dataclasses.dataclass(frozen=True)
class SizePrior:
    """Prior of one kernel size and what it was trained on.

    Attributes:
        vae: the networks.
        train: slices that it was trained on, float32[N, h, w].
        held_out: slices that it was not, float32[M, h, w].
    """

    vae: KernelVAE
    train: np.ndarray
    held_out: np.ndarray

    def gaussian(self) -> SliceGaussian:
        """Fits a Gaussian of full covariance to the training slices."""
        return fit_gaussian(self.train)

    def initializer(self, init: str, draw: Draw = "mean") -> KernelInitializer:
        """Returns the initialiser "vae" or "filters"; the latter may use held-out slices too."""
        if init == "vae":
            return prior_initializer(self.vae, draw=draw)
        return slices_initializer(np.concatenate([self.train, self.held_out]))


def write_size(folder: Path, prior: SizePrior, *, note: Mapping[str, Any]) -> None:
    """Writes the prior of one size: its networks, and its slices.

    Args:
        folder: folder of all sizes.
        prior: the prior.
        note: provenance, JSON values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = prior.vae.kernel_size
    slices = {"train": prior.train, "held_out": prior.held_out}
    write_arrays(folder / f"{size_text(size)}-slices.npz", slices, {"kernel_size": size})
    # Last, so that networks are there only with their slices.
    save_prior(folder / f"{size_text(size)}.safetensors", prior.vae, note=note)


def read_size(folder: Path, size: Size) -> SizePrior | None:
    """Reads the prior of one size; None if it is not there.

    Raises:
        UserError: a file is damaged or of another size.
    """
    path = folder / f"{size_text(size)}.safetensors"
    if not path.exists():
        return None
    vae = load_prior(path, kernel_size=size).prior
    slices = read_arrays(folder / f"{size_text(size)}-slices.npz", {"kernel_size": size})
    if slices is None:
        raise UserError(f"{folder} lacks {size_text(size)}-slices.npz; run the priors again")
    return SizePrior(vae, slices["train"], slices["held_out"])


def resolve_priors(
    source: str, sizes: Iterable[Size], *, flag: str, seed: int
) -> dict[Size, SizePrior]:
    """Loads the priors of a run, one of every size that a network needs.

    Args:
        source: value of the flag: the folder of a run of dwp.priors, or "random".
        sizes: kernel sizes.
        flag: name of the flag.
        seed: seed of the run, which takes the priors of the same seed if there are any, else those
            of seed 0; and of untrained priors.

    Raises:
        UserError: a size is missing or a file is damaged.
    """
    wanted = sorted(set(sizes))
    if source == RANDOM:
        return {size: _untrained(size, seed) for size in wanted}
    folder = resolve(source, REQUIRED_PRIORS, flag=flag, seed=seed).path
    found = {size: read_size(folder, size) for size in wanted}
    for size, prior in found.items():
        if prior is None:
            kept = (re.fullmatch(r"(\d+x\d+)\.safetensors", p.name) for p in folder.iterdir())
            names = ", ".join(sorted(match[1] for match in kept if match)) or "none"
            raise UserError(
                f"--{flag.replace('_', '-')} is {source!r}, which has priors of {names} kernels; "
                f"expected {size_text(size)}, as a layer of the network has"
            )
    return {size: prior for size, prior in found.items() if prior is not None}


def _untrained(size: Size, seed: int) -> SizePrior:
    vae = kernel_vae(jax.random.key(seed), size)
    drawn = np.asarray(sample_slices(jax.random.key(seed + 1), vae, _DRAWN, draw="mean"))
    return SizePrior(vae, drawn, drawn[:0])
