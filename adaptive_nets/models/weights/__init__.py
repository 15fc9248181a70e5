"""Trained networks in files: the native format, PyTorch state dicts, other safetensors."""

from adaptive_nets.models.weights.stored import (
    FORMAT,
    InputNormalisation,
    StoredNetwork,
    check_fits,
    flatten,
    load_network,
    save_network,
    unflatten,
)

__all__ = [
    "FORMAT",
    "InputNormalisation",
    "StoredNetwork",
    "check_fits",
    "flatten",
    "load_network",
    "save_network",
    "unflatten",
]
