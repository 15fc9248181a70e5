"""The zoo: one family per file, made by name.

A family registers its models when it is imported; every module of this package and of `adaptive` is
imported here, and so are the modules that other distributions name in the entry-point group
``adaptive_nets.models``, when a model is first looked up.
"""

import importlib
import pkgutil

from adaptive_nets.models.output import (
    BlockTrace,
    ModelOutput,
    auxiliary_logits_of,
    blocks_of,
    logits_of,
    ponder_map,
)
from adaptive_nets.models.registry import ModelEntry, create_model, list_models, model_entry

__all__ = [
    "BlockTrace",
    "ModelEntry",
    "ModelOutput",
    "auxiliary_logits_of",
    "blocks_of",
    "create_model",
    "list_models",
    "logits_of",
    "model_entry",
    "ponder_map",
]

for _package in (__name__, f"{__name__}.adaptive"):
    for _module in pkgutil.iter_modules(importlib.import_module(_package).__path__):
        if not _module.ispkg:
            importlib.import_module(f"{_package}.{_module.name}")
