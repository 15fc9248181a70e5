"""Trained networks in files: the native format, PyTorch state dicts, other safetensors."""

from adaptive_nets.models.weights.header import FORMAT
from adaptive_nets.models.weights.locate import find_network
from adaptive_nets.models.weights.stored import (
    InputNormalisation,
    StoredNetwork,
    check_fits,
    flatten,
    load_network,
    save_network,
    unflatten,
)
from adaptive_nets.models.weights.trained import load_run, load_weights, prepare_images

__all__ = [
    "FORMAT",
    "InputNormalisation",
    "StoredNetwork",
    "check_fits",
    "find_network",
    "flatten",
    "load_network",
    "load_run",
    "load_weights",
    "prepare_images",
    "save_network",
    "unflatten",
]
