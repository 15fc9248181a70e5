"""Linear classifiers of pixels with sparse variational dropout, the workshop paper's VD-ARD."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import DataConfig
from experiments.papers.sparse_vd.configs.fields import SparseVDConfig
from experiments.papers.sparse_vd.configs.recipes import (
    DATA,
    RECIPE,
    RUNNER,
    SPARSE_DEVIATIONS,
    presets,
    shorter,
    sparse,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Experiment

_DEVIATIONS = (
    "The workshop paper's schedule is unknown; ours is that of LeNet-300-100.",
    "The digits have no official division; ours is described with the data.",
)
_SETS = {
    # id -> title, model, images, epochs, epochs of the preset quick
    "mnist": ("MNIST", "linear_mnist_sparse_vd", DATA, 200, 20),
    "digits": (
        "digits", "linear_digits_sparse_vd",
        DataConfig(name="digits", pixel_scale=16.0, centre="pixel"), 2000, 400,
    ),
}  # fmt: skip


def _experiment(name: str) -> Experiment:
    title, model, data, epochs, quick = _SETS[name]
    config = sparse(model, "50%", mask_in_training=False, kl_start="2.5%", kl_full="10%")
    config = config_lib.replace_groups(
        config,
        data=data,
        schedule=dataclasses.replace(config.train.schedule, length=f"{epochs} epochs"),
    )
    assert isinstance(config, SparseVDConfig)
    return Experiment(
        id=f"sparse_vd.linear.{name}",
        title=f"linear classifier of {title}, sparse variational dropout",
        row=f"linear.{name}-sparse",
        presets=presets(config, quick=shorter(config, f"{quick} epochs"), bounds={}, seeds=3),
        runner=RUNNER,
        data=data.name,
        deviations=(*SPARSE_DEVIATIONS, *_DEVIATIONS),
        measures=("test_accuracy", "sparsity"),
        recipe=RECIPE,
    )


EXPERIMENTS = tuple(map(_experiment, _SETS))
