"""Table 1: LeNets on MNIST, dense and sparse."""

from __future__ import annotations

from experiments.papers.sparse_vd.configs.recipes import (
    DENSE_DEVIATIONS,
    QUICK_DEVIATION,
    RECIPE,
    RUNNER,
    SPARSE_DEVIATIONS,
    dense,
    fewer_steps,
    presets,
    shorter,
    sparse,
)
from experiments.suite.experiment import Bound, Experiment

_LENET_300_MEASURES = ("error", "compression", "sparsity.fc1", "sparsity.fc2", "sparsity.fc3")
_LENET_5_MEASURES = (
    "error", "compression", "sparsity.conv1", "sparsity.conv2", "sparsity.fc1", "sparsity.fc2",
)  # fmt: skip
_LENET_300 = sparse("lenet_300_100_sparse_vd", hold="50%")
_LENET_300_DENSE = dense("lenet_300_100", "40 epochs")
_LENET_5 = sparse("lenet5_caffe_sparse_vd", hold="0%")
_LENET_5_DENSE = dense("lenet5_caffe", "20 epochs")

EXPERIMENTS = (
    Experiment(
        id="sparse_vd.table1.lenet-300-100-original",
        title="LeNet-300-100 on MNIST, dense",
        row="table1.lenet-300-100-original",
        presets=presets(
            _LENET_300_DENSE,
            quick=shorter(_LENET_300_DENSE, "30 epochs"),
            bounds={"paper": (Bound("error", 1.0, 2.2),), "quick": (Bound("error", 1.0, 2.2),)},
            seeds=3,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=DENSE_DEVIATIONS,
        measures=("error", "compression"),
    ),
    Experiment(
        id="sparse_vd.table1.lenet-300-100-sparse",
        title="LeNet-300-100 on MNIST, sparse variational dropout",
        row="table1.lenet-300-100-sparse",
        presets=presets(
            _LENET_300,
            quick=fewer_steps(_LENET_300),
            bounds={
                "paper": (Bound("error", 1.2, 2.0), Bound("compression", 60, 200)),
                "quick": (Bound("error", 1.2, 2.3), Bound("compression", 55, 120)),
            },
            seeds=3,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=(*SPARSE_DEVIATIONS, QUICK_DEVIATION),
        measures=_LENET_300_MEASURES,
        recipe=RECIPE,
    ),
    Experiment(
        id="sparse_vd.table1.lenet-5-caffe-original",
        title="LeNet-5-Caffe on MNIST, dense",
        row="table1.lenet-5-caffe-original",
        presets=presets(
            _LENET_5_DENSE,
            quick=shorter(_LENET_5_DENSE, "2000 steps"),
            bounds={"paper": (Bound("error", 0.4, 1.1),), "quick": (Bound("error", 0.4, 5.0),)},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=DENSE_DEVIATIONS,
        measures=("error", "compression"),
    ),
    Experiment(
        id="sparse_vd.table1.lenet-5-caffe-sparse",
        title="LeNet-5-Caffe on MNIST, sparse variational dropout",
        row="table1.lenet-5-caffe-sparse",
        presets=presets(
            _LENET_5,
            quick=shorter(_LENET_5, "4000 steps", kl_start="2.5%", kl_full="10%"),
            bounds={
                "paper": (Bound("error", 0.4, 0.85), Bound("compression", 200, 600)),
                "quick": (Bound("error", 0.4, 6.0), Bound("compression", 5, 600)),
            },
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=SPARSE_DEVIATIONS,
        measures=_LENET_5_MEASURES,
        recipe=RECIPE,
    ),
)
