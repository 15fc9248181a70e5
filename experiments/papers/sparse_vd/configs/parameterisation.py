"""Multiplicative against additive noise: the older form trains log α, the paper's log σ²."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import RunConfig
from experiments.papers.sparse_vd.configs.fields import SparseVDConfig
from experiments.papers.sparse_vd.configs.recipes import (
    RECIPE,
    SMOKE_RUN,
    SPARSE_DEVIATIONS,
    fewer_steps,
    shorter,
    sparse,
)
from experiments.suite import config as config_lib
from experiments.suite.experiment import Experiment, Preset

NETWORKS = {
    "lenet-300-100": ("LeNet-300-100", "lenet_300_100_sparse_vd", "50%"),
    "lenet-5-caffe": ("LeNet-5-Caffe", "lenet5_caffe_sparse_vd", "0%"),
}
FORMS = ("multiplicative", "additive")
EPOCHS = (2, 54)
"""Epochs of the figure at which the sparsity was read."""
AT_EPOCHS = tuple(f"sparsity.epoch{epoch}" for epoch in EPOCHS)
"""Measures of these epochs."""

_RUNNER = "experiments.papers.sparse_vd.experiment:run_forms"
_EVERY_EPOCH = RunConfig(log_every="2%", eval_every="1 epochs", checkpoint_every="10%")
_DEVIATIONS = (
    "The figure's network, LeNet-5 on MNIST from one initial posterior, is recalled, not verified; "
    "LeNet-300-100 is ours.",
    "The noise of removed weights stays in training, for both forms alike.",
)


def _experiment(network: str, form: str) -> Experiment:
    title, model, hold = NETWORKS[network]
    config = sparse(model, hold, mask_in_training=False)
    config = config_lib.replace_groups(
        config,
        schedule=dataclasses.replace(config.train.schedule, length="250 epochs"),
        variational=dataclasses.replace(config.variational, parameterisation=form),
        run=_EVERY_EPOCH,
    )
    assert isinstance(config, SparseVDConfig)
    quick = config_lib.replace_groups(
        fewer_steps(config) if network == "lenet-300-100"
        else shorter(config, "5 epochs", kl_start="2.5%", kl_full="10%"),
        run=_EVERY_EPOCH,
    )  # fmt: skip
    return Experiment(
        id=f"sparse_vd.parameterisation.{network}-{form}",
        title=f"{title} on MNIST, {form} noise",
        row=f"parameterisation.{network}-{form}",
        presets={
            "smoke": Preset(
                shorter(config, "60 steps", SMOKE_RUN, kl_start="10%", kl_full="50%")
            ),
            "quick": Preset(quick),
            "paper": Preset(config),
        },
        runner=_RUNNER,
        data="mnist",
        deviations=(*SPARSE_DEVIATIONS, *_DEVIATIONS),
        measures=("sparsity", *AT_EPOCHS),
        recipe=RECIPE,
    )  # fmt: skip


EXPERIMENTS = tuple(_experiment(network, form) for network in NETWORKS for form in FORMS)
