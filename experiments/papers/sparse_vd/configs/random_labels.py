"""Random labels: does a network memorise them?"""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.papers.sparse_vd.configs import vgg
from experiments.papers.sparse_vd.configs.fields import WideConfig, WideSparseConfig, WidthConfig
from experiments.papers.sparse_vd.configs.recipes import (
    RANDOM_DEVIATIONS,
    RECIPE,
    RUNNER,
    SPARSE_DEVIATIONS,
    dense,
    first_digits,
    presets,
    random_labels,
    shorter,
    sparse,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Bound, Experiment, Preset

_RANDOM = random_labels(sparse("mlp_4x1000_sparse_vd", hold="50%"))
_RANDOM_DENSE = random_labels(dense("mlp_4x1000", "100 epochs"))


_CIFAR_DEVIATIONS = (
    "The width of the poster's VGG-like network is unknown; ours is 1.",
    "Images are standardised per channel; the authors whiten them with all pixels (ZCA).",
)


def _cifar(kind: str) -> Experiment:
    """Defines the VGG-like network on random labels of CIFAR-10."""
    is_sparse = kind == "sparse"
    model = "vgg_cifar10_sparse_vd" if is_sparse else "vgg_cifar10"
    made = random_labels(
        sparse(model, hold="50%", mask_in_training=False) if is_sparse
        else dense(model, "100 epochs")
    )  # fmt: skip
    train = config_lib.training(made)
    data = dataclasses.replace(vgg.DATA, labels="random")
    train = dataclasses.replace(train, data=data)
    config: Any = (
        WideSparseConfig(train, made.variational) if is_sparse else WideConfig(train)
    )  # fmt: skip
    times: dict[str, Any] = {"kl_start": "2.5%", "kl_full": "10%"} if is_sparse else {}
    quick = first_digits(shorter(config, "1000 steps", **times))
    quick = config_lib.replace_groups(quick, network=WidthConfig(0.25))
    found = presets(config, quick=quick, bounds={}, seeds=1)
    smoke = first_digits(found["smoke"].config)
    smoke = config_lib.replace_groups(
        smoke, network=WidthConfig(1 / 32),
        schedule=dataclasses.replace(config_lib.training(smoke).schedule, length="4 steps"),
    )  # fmt: skip
    label = "sparse variational dropout" if is_sparse else "binary dropout"
    return Experiment(
        id=f"sparse_vd.random-labels.cifar10-{kind}",
        title=f"random labels on CIFAR-10, VGG-like network, {label}",
        row=f"random-labels.cifar10-{kind}",
        presets={**found, "smoke": Preset(smoke)},
        runner=RUNNER,
        data="cifar10",
        deviations=(*(SPARSE_DEVIATIONS if is_sparse else ()), *_CIFAR_DEVIATIONS),
        measures=("train_accuracy", "test_accuracy", *(("sparsity",) if is_sparse else ())),
        recipe=(*(RECIPE if is_sparse else ()), "network.width"),
    )


EXPERIMENTS = (
    Experiment(
        id="sparse_vd.random-labels.mnist-dropout",
        title="random labels on MNIST, fully connected, binary dropout",
        row="random-labels.mnist-dropout",
        presets=presets(
            _RANDOM_DENSE,
            quick=first_digits(shorter(_RANDOM_DENSE, "6000 steps")),
            bounds={"quick": (Bound("train_accuracy", 90, 100), Bound("test_accuracy", 2, 20))},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=RANDOM_DEVIATIONS,
        measures=("train_accuracy", "test_accuracy"),
    ),
    Experiment(
        id="sparse_vd.random-labels.mnist-sparse",
        title="random labels on MNIST, fully connected, sparse variational dropout",
        row="random-labels.mnist-sparse",
        presets=presets(
            _RANDOM,
            quick=first_digits(shorter(_RANDOM, "3000 steps", kl_start="2.5%", kl_full="10%")),
            bounds={"quick": (Bound("train_accuracy", 5, 20), Bound("sparsity", 99, 100))},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=(*SPARSE_DEVIATIONS, *RANDOM_DEVIATIONS),
        measures=("train_accuracy", "test_accuracy", "sparsity"),
        recipe=RECIPE,
    ),
    *map(_cifar, ("dropout", "sparse")),
)
