"""Examples in docstrings give what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

import adaptive_nets
import experiments
import kernels

# Their examples compile for ten seconds; what they show has tests of its own.
DEAR = {
    "adaptive_nets.data.augmentations.sub_policy",
    "adaptive_nets.layers.kernel_vae",
    "adaptive_nets.perforation.network",
    "adaptive_nets.variational.deep_weight_prior.bound",
    "adaptive_nets.variational.deep_weight_prior.sampling",
}
FINDER = doctest.DocTestFinder(exclude_empty=True)


def modules_with_examples() -> list[str]:
    """Names of the modules whose source has an example."""
    found = []
    for package in (kernels, adaptive_nets, experiments):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            path = Path(module.module_finder.path, module.name.rpartition(".")[2])  # pyright: ignore
            source = path / "__init__.py" if module.ispkg else path.with_suffix(".py")
            if ">>> " in source.read_text(encoding="utf-8"):
                found.append(module.name)
    return found


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in DEAR else ())
        for name in modules_with_examples()
    ],
)
def test_examples(name):
    importlib.import_module(name)
    # By its name: a package may have a function of the same name as its attribute.
    for test in FINDER.find(sys.modules[name], name):
        report: list[str] = []
        results = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
        assert not results.failed, "".join(report)


def test_dear_examples_exist():
    assert set(modules_with_examples()) >= DEAR


def test_the_public_operations_have_examples():
    operations = ("masked_conv", "perforated_conv", "masked_unit")
    assert {f"kernels.{name}.api" for name in operations} <= set(modules_with_examples())
