"""Networks without residual connections on CIFAR: NIN, FractalNet, DenseNet."""

from __future__ import annotations

from typing import Literal

from adaptive_nets.training.config import (
    ModelConfig,
    OptimiserConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.zoo.configs.cifar import NESTEROV, cifar, experiment, is_augmented, steps
from experiments.papers.zoo.configs.presets import OFTEN
from experiments.papers.zoo.fields import (
    DenseNetOptions,
    DenseNetTrainConfig,
    FractalOptions,
    FractalTrainConfig,
    NinOptions,
    NinTrainConfig,
)
from experiments.suite.experiment import Experiment

_NIN = (
    "Images are centred per pixel and scaled per channel instead of normalised in contrast and "
    "whitened.",
    "He-normal initialisation, biases of 1 in the last layer, and Adam with linear decay over 200 "
    "epochs; the authors use SGD with N(0, 0.05^2) and lower the rate when training stalls.",
)
_DENSE_HEAD = (
    "The paper does not state the form of the dense head; ours reads the 8x8 maps of the last "
    "layer after their ReLU.",
)


def _nin(
    head: Literal["average", "dense"], data: str, *, dropout: float | None = None
) -> Experiment:
    train = TrainConfig(
        data=cifar(data, centre="pixel"),
        model=ModelConfig(name="nin_cifar10"),
        optimiser=OptimiserConfig(learning_rate=5e-4, weight_decay=1e-5),
        schedule=ScheduleConfig(length="200 epochs", kind="linear", warmup="5%"),
        run=OFTEN,
    )
    name = f"{head}-dropout" if dropout else head
    described = {"average": "global average pooling", "dense": "a dense head"}[head]
    return experiment(
        f"nin.{name}-{data}",
        f"NIN with {described}{' and dropout' if dropout else ''}",
        NinTrainConfig(train, NinOptions(head=head, head_dropout=dropout or 0.0)),
        # Few images, so that a network without regularisation overfits within the steps.
        quick={
            "schedule": {"length": "3000 steps"},
            "data": {"train_limit": 5000, "batch_size": 64},
            "network": {"width": 0.25},
            "optimiser": {"learning_rate": 2e-3},
        },
        smoke={"network": {"width": 0.125}},
        deviations=_NIN + (_DENSE_HEAD if head == "dense" else ()),
        recipe=("network.dropout_rate",),
    )


_FRACTAL = (
    "33.7 M parameters; the literature quotes 38.6 M, which no published widths give.",
    "Half of the steps drop paths globally; the share is recalled.",
)


def _fractal(regularised: bool, data: str) -> Experiment:
    train = TrainConfig(
        data=cifar(data, batch_size=100),
        model=ModelConfig(name="fractalnet20_cifar10"),
        optimiser=OptimiserConfig(name="sgd", learning_rate=0.02, momentum=0.9),
        schedule=steps("400 epochs", ("50%", "75%", "87.5%", "93.75%")),
        run=OFTEN,
    )
    options = FractalOptions()
    if not regularised:
        options = FractalOptions(dropout_rates=(0.0,) * 5, local_drop_rate=0.0, global_share=0.0)
    also = "deepest_error" if regularised else "params"
    with_it = {"deepest_error": ("c10", "c100"), "params": ("c10",)}[also]
    return experiment(
        f"fractalnet.{'drop-path' if regularised else 'plain'}-{data}",
        f"FractalNet-20 {'with' if regularised else 'without'} dropout and drop-path",
        FractalTrainConfig(train, options),
        quick={
            "schedule": {"length": "1000 steps"},
            "network": {"widths": (16, 32, 64, 128, 128)},
        },
        smoke={"network": {"widths": (8, 8, 8, 16, 16)}},
        measures=("error", also) if data in with_it else ("error",),
        deviations=_FRACTAL,
    )


def _densenet(name: str, growth: int, data: str) -> Experiment:
    augmented = is_augmented(data)
    bc, depth = name.startswith("bc"), name.removeprefix("bc")
    classes = 100 if data.startswith("c100") else 10
    model = f"densenet{'_bc' if bc else ''}{depth}_k{growth}_cifar{classes}"
    train = TrainConfig(
        data=cifar(data, batch_size=64),
        model=ModelConfig(name=model),
        optimiser=NESTEROV,
        schedule=steps("300 epochs"),
        run=OFTEN,
    )
    return experiment(
        f"densenet.{name}-k{growth}-{data}",
        f"DenseNet-{'BC-' if bc else ''}{depth} of growth rate {growth}"
        f"{'' if augmented else ' with dropout'}",
        DenseNetTrainConfig(train, DenseNetOptions(dropout_rate=0.0 if augmented else 0.2)),
        # The batches, and about the cost, of the residual network that it is compared with.
        quick={"network": {"depth": 16}, "data": {"batch_size": 128}},
        smoke={"network": {"depth": 10}},
        measures=("error", "params"),
    )


_EVERY = ("c10", "c10-plus", "c100", "c100-plus")
_DENSENETS = (("40", 12), ("100", 12), ("100", 24), ("bc100", 12), ("bc250", 24))

EXPERIMENTS = (
    _nin("dense", "c10"),
    _nin("dense", "c10", dropout=0.5),
    *(_nin("average", data) for data in ("c10", "c10-plus", "c100")),
    *(_fractal(regularised, data) for data in _EVERY for regularised in (False, True)),
    *(_densenet(name, growth, data) for name, growth in _DENSENETS for data in _EVERY),
    # The paper's largest network has augmented data only.
    *(_densenet("bc190", 40, data) for data in ("c10-plus", "c100-plus")),
)
