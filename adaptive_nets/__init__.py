"""Convolutional networks that spend less, in JAX and Flax.

    import adaptive_nets as an

    an.list_models("lenet*")
    model = an.create_model("lenet_300_100")
    an.count_params("lenet5_caffe"), an.count_macs("lenet5_caffe")

    model, variables, config = an.load_run("runs/ID/quick")
    images = an.prepare_images(["digit.png"], config)
    logits = model.apply(variables, images, train=False)

The methods live in rooms of their own: `adaptive_nets.variational` and its neighbours hold the
mathematics as functions on arrays, `adaptive_nets.layers` and `adaptive_nets.models` the modules,
`adaptive_nets.training` the loop. Every package is an attribute: `an.ensembling`, for example.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adaptive_nets.analysis import count_macs, count_params
    from adaptive_nets.models import create_model, full_output, list_models, logits_of
    from adaptive_nets.models.weights.trained import load_run, prepare_images

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "count_macs",
    "count_params",
    "create_model",
    "full_output",
    "list_models",
    "load_run",
    "logits_of",
    "prepare_images",
]

_LAZY_EXPORTS = {
    "count_macs": "adaptive_nets.analysis",
    "count_params": "adaptive_nets.analysis",
    "create_model": "adaptive_nets.models",
    "full_output": "adaptive_nets.models",
    "list_models": "adaptive_nets.models",
    "load_run": "adaptive_nets.models.weights.trained",
    "logits_of": "adaptive_nets.models",
    "prepare_images": "adaptive_nets.models.weights.trained",
}


def __getattr__(name: str):
    """Imports what is asked for, so that commands which need no JAX do not wait for it."""
    if name in _LAZY_EXPORTS:
        return getattr(importlib.import_module(_LAZY_EXPORTS[name]), name)
    if name in _packages():
        return importlib.import_module(f"adaptive_nets.{name}")
    raise AttributeError(f"module 'adaptive_nets' has no attribute {name!r}")


def _packages() -> list[str]:
    return [found.name for found in pkgutil.iter_modules(__path__) if found.ispkg]


def __dir__() -> list[str]:
    return sorted([*__all__, *_packages()])
