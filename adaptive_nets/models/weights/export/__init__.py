"""Trained networks for other programs: PyTorch state dicts and StableHLO programs."""

from adaptive_nets.models.weights.export.program import (
    PLATFORMS,
    Program,
    export_program,
    forward_function,
    normalised,
    read_program,
)
from adaptive_nets.models.weights.export.source import (
    Source,
    save_source,
    source_of_run,
    source_of_weights,
)
from adaptive_nets.models.weights.export.state_dict import from_state_dict, to_state_dict
from adaptive_nets.models.weights.export.torch_archive import torch_archive
from adaptive_nets.models.weights.export.torch_names import torch_collection, torch_names

__all__ = [
    "PLATFORMS",
    "Program",
    "Source",
    "export_program",
    "forward_function",
    "from_state_dict",
    "normalised",
    "read_program",
    "save_source",
    "source_of_run",
    "source_of_weights",
    "to_state_dict",
    "torch_archive",
    "torch_collection",
    "torch_names",
]
