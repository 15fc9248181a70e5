"""Model zoo: one family per file; models are created by name.

A family registers its models when it is imported. This package imports every module of its own and
of `adaptive`. The modules that other distributions name in the entry-point group
``adaptive_nets.models`` are imported at the first lookup of a model.
"""

import importlib
import pkgutil

from adaptive_nets.models.adaptive.adaptive_block import AdaptiveBlock, AdaptiveBlockOutput
from adaptive_nets.models.adaptive.budgets import (
    BudgetedNetwork,
    calibrate_budget,
    calibrate_on_images,
    with_budget,
)
from adaptive_nets.models.output import (
    BlockTrace,
    ModelOutput,
    auxiliary_logits_of,
    blocks_of,
    full_output,
    full_output_method,
    logits_of,
    ponder_map,
)
from adaptive_nets.models.registry import (
    ModelEntry,
    broken_plugins,
    create_model,
    list_models,
    model_entry,
)

__all__ = [
    "AdaptiveBlock",
    "AdaptiveBlockOutput",
    "BlockTrace",
    "BudgetedNetwork",
    "ModelEntry",
    "ModelOutput",
    "auxiliary_logits_of",
    "blocks_of",
    "broken_plugins",
    "calibrate_budget",
    "calibrate_on_images",
    "create_model",
    "full_output",
    "full_output_method",
    "list_models",
    "logits_of",
    "model_entry",
    "ponder_map",
    "with_budget",
]

for _package in (__name__, f"{__name__}.adaptive"):
    for _module in pkgutil.iter_modules(importlib.import_module(_package).__path__):
        if not _module.ispkg:
            importlib.import_module(f"{_package}.{_module.name}")
