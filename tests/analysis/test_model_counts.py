"""Shipped counts against counts made now; `-m adaptive_nets.analysis.model_counts` renews them."""

from __future__ import annotations

import dataclasses
import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import adaptive_nets
from adaptive_nets.analysis import model_counts
from adaptive_nets.analysis.macs import count_cost
from adaptive_nets.analysis.model_counts import (
    FILE,
    count_all,
    description,
    is_current,
    registered_models,
    shipped_counts,
    shipped_models,
    shipped_reference_counts,
    to_text,
)
from adaptive_nets.analysis.reference_counts import reference_counts

pytestmark = pytest.mark.core
ROOT = Path(adaptive_nets.__file__).parents[1]


def test_every_model_and_every_reference_has_its_count():
    assert sorted(shipped_counts()) == sorted(registered_models())
    stated = {key: reference.parameters for key, reference in reference_counts().items()}
    assert shipped_reference_counts() == stated


@pytest.mark.parametrize(
    "name",
    ["lenet_300_100_sparse_vd", "lenet5_caffe", "resnet20_cifar10", "vgg11", "alexnet_2012"],
)
def test_the_shipped_count_is_the_present_one(name):
    assert shipped_counts()[name] == dataclasses.asdict(count_cost(name))


def test_the_file_says_of_every_model_what_the_registry_says():
    for name, model in shipped_models().items():
        assert {**shipped_counts()[name], **description(name)} == model


def test_a_model_that_is_not_in_the_file_is_noticed(monkeypatch):
    assert is_current()
    models = {k: v for k, v in shipped_models().items() if k != "lenet5_caffe"}
    monkeypatch.setattr(model_counts, "_contents", lambda: {"models": models})
    assert not is_current()


@pytest.mark.slow
def test_the_file_is_what_its_generator_writes():
    path = Path(adaptive_nets.__file__).parent / "models" / FILE
    assert path.read_text(encoding="utf-8") == to_text(count_all())


def test_reading_the_counts_imports_neither_jax_nor_flax():
    script = (
        "import sys; from adaptive_nets.analysis.model_counts import shipped_counts; "
        "assert shipped_counts(); assert not {'jax', 'flax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_file_is_part_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["adaptive_nets"]
    assert any(fnmatch.fnmatch(f"models/{FILE}", pattern) for pattern in patterns)
