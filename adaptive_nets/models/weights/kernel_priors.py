"""Files of deep weight priors: a safetensors file with a header that rebuilds the networks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from adaptive_nets.layers.kernel_vae import KernelVAE, kernel_vae
from adaptive_nets.models.weights.finite import first_not_finite
from adaptive_nets.models.weights.header import digest
from adaptive_nets.models.weights.safetensors_files import read_safetensors
from adaptive_nets.models.weights.stored import check_fits, flatten, unflatten
from adaptive_nets.models.weights.unreadable import Unreadable
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_bytes_atomically
from adaptive_nets.runtime.reading import parse_json

FORMAT = "adaptive_nets.kernel_prior"
VERSION = 1
_DIGEST = "digest"
# Far above any use; a damaged header must not allocate the memory.
_MOST_FEATURES = 4096


@dataclasses.dataclass(frozen=True)
class StoredPrior:
    """Contents of a file of a prior.

    Attributes:
        prior: the prior.
        note: provenance of the prior, such as its source networks and its ELBO.
        digest: sha256, hex, of header and parameters.
    """

    prior: KernelVAE
    note: dict[str, Any]
    digest: str


def save_prior(path: str | Path, prior: KernelVAE, *, note: Mapping[str, Any] | None = None) -> int:
    """Writes a prior to one file, atomically.

    Args:
        path: file to write, usually *.safetensors.
        prior: prior.
        note: provenance of the prior, JSON values.

    Returns:
        Size of the file in bytes.

    Raises:
        UserError: a parameter is not finite; the message names it.
    """
    tensors = {
        name: np.asarray(leaf, order="C")
        for name, leaf in flatten(jax.device_get(prior.params)).items()
    }
    for name, leaf in tensors.items():
        if (place := first_not_finite(leaf)) is not None:
            raise UserError(f"prior is not saved: {name} has {place}; expected finite numbers")
    header: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "kernel_size": list(prior.kernel_size),
        "hidden": prior.hidden,
        "latent": prior.latent_size,
        "floor": prior.floor,
        # As JSON has it, so that the digest is that of what is read.
        "note": json.loads(json.dumps(dict(note or {}), allow_nan=False)),
    }
    header[_DIGEST] = digest(tensors, header)
    content = save(tensors, metadata={FORMAT: json.dumps(header, sort_keys=True)})
    write_bytes_atomically(path, content)
    return len(content)


def load_prior(path: str | Path, *, kernel_size: tuple[int, int] | None = None) -> StoredPrior:
    """Reads a file of `save_prior`.

    Args:
        path: file to read.
        kernel_size: size that the prior must have, (h, w); None accepts any.

    Raises:
        UserError: the file is absent, unreadable, damaged, of another format or version, or holds a
            prior of another kernel size.
    """
    path = Path(path)
    source = f"prior file {path}"
    try:
        metadata, found = read_safetensors(path)
    except FileNotFoundError as error:
        raise UserError(f"{source} does not exist; expected a file of `save_prior`") from error
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{source} cannot be read as safetensors: {error}") from error
    if FORMAT not in metadata:
        raise UserError(f"{source} is no prior; expected the entry {FORMAT!r} in its header")
    try:
        header, tensors = _checked(metadata[FORMAT], found)
        size = _kernel_size(header)
        params = unflatten(tensors)
    except ValueError as error:
        raise UserError(f"{source} {error}") from error
    if kernel_size is not None and size != tuple(kernel_size):
        ours, wanted = ("x".join(map(str, pair)) for pair in (size, kernel_size))
        raise UserError(f"{source} is a prior of {ours} slices; expected {wanted}, as the layer")
    try:
        expected = jax.eval_shape(
            lambda: kernel_vae(
                jax.random.key(0),
                size,
                hidden=header["hidden"],
                latent=header["latent"],
                floor=header["floor"],
            )
        )
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}") from error
    check_fits(params, expected.params, source=source)
    prior = KernelVAE(params, expected.encoder, expected.decoder)
    return StoredPrior(prior, header["note"], header[_DIGEST])


def _checked(
    text: str, found: Mapping[str, np.ndarray | Unreadable]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Checks version, digest and tensors; a `ValueError` is a clause about the file."""
    tensors: dict[str, np.ndarray] = {}
    for name, leaf in found.items():
        if isinstance(leaf, Unreadable):
            raise ValueError(f"is damaged: {name} is {leaf.what}")
        if leaf.dtype != np.float32:
            raise ValueError(f"is damaged: {name} is {leaf.dtype}; expected float32")
        if (place := first_not_finite(leaf)) is not None:
            raise ValueError(f"is refused: {name} has {place}; expected finite numbers")
        tensors[name] = leaf
    try:
        header = parse_json(text)
    except ValueError as error:
        raise ValueError(f"is damaged: its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise ValueError("is damaged: its header is not a JSON object")
    if header.get("version") != VERSION:
        raise ValueError(f"has version {str(header.get('version'))[:40]}; expected {VERSION}")
    entries = {name: entry for name, entry in header.items() if name != _DIGEST}
    if header.get(_DIGEST) != digest(tensors, entries):
        raise ValueError("is damaged: its contents do not match its digest")
    for name in ("hidden", "latent"):
        if type(header.get(name)) is not int or not 0 < header[name] <= _MOST_FEATURES:
            raise ValueError(
                f"is damaged: {name} is {str(header.get(name))[:40]} in its header; expected 1 to "
                f"{_MOST_FEATURES:,}"
            )
    if not isinstance(header.get("note"), dict) or "floor" not in header:
        raise ValueError("is damaged: its header lacks the note or the floor")
    return header, tensors


def _kernel_size(header: Mapping[str, Any]) -> tuple[int, int]:
    size = header.get("kernel_size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int for n in size):
        raise ValueError(
            f"is damaged: kernel_size is {str(size)[:40]} in its header; expected two numbers"
        )
    return size[0], size[1]
