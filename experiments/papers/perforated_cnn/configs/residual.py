"""Experiments on trained residual networks: the search, and one layer under each kind of mask."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import (
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.perforated_cnn.configs.fields import (
    LayerConfig,
    MaskKind,
    PerforationConfig,
    SearchConfig,
    SearchedConfig,
    SingleLayerConfig,
    SourceDataConfig,
    TimingConfig,
)
from experiments.papers.perforated_cnn.configs.sizes import single_layer_presets, smaller
from experiments.shared.trained_weights import CIFAR_DATA, CIFAR_MODEL, SMOKE_MODEL
from experiments.suite.experiment import Experiment, Preset

_TUNING = TrainConfig(
    data=CIFAR_DATA,
    model=CIFAR_MODEL,
    optimiser=OptimiserConfig(
        name="sgd", learning_rate=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
    ),
    schedule=ScheduleConfig(length="3 epochs", kind="cosine", warmup="5%"),
    run=RunConfig(log_every="5%", eval_every="50%", checkpoint_every="20%"),
)  # fmt: skip
_SMOKE_RUN = RunConfig(log_every="100%", eval_every="100%", checkpoint_every="100%")

# Pooling structure needs a pooling layer as the reader. Only the last layer has one, the mean over
# the whole map, to which all positions are equal.
KINDS: tuple[MaskKind, ...] = ("uniform", "grid", "regular", "impact")
# Fewer multiplications: name of the row -> factor.
TARGETS = {"1p5x": 1.5, "1p7x": 1.7, "2x": 2.0, "3x": 3.0}

NOT_IN_PAPER = (
    "The paper perforates no residual network. Every convolution larger than 1x1 is a candidate; "
    "an addition to the shortcut fills the perforated positions first.",
    "The search reduces multiplications (--search.cost time reduces measured time), and takes the "
    "greatest saving among candidates that do not increase the loss.",
    "Length and rate of the fine-tuning are ours.",
)


def searched(row: str) -> Experiment:
    """Defines the search on ResNet-32 for a factor of fewer multiplications, with fine-tuning."""
    target = TARGETS[row]
    config = SearchedConfig(
        _TUNING,
        perforation=PerforationConfig(interpolation="explicit"),
        search=SearchConfig(
            target=target, cost="macs", steps=1000, kinds=("grid", "impact"), repetitions=1,
            images=2000, impact_images=1000,
        ),
        timing=TimingConfig(batches=(1, 16, 128)),
    )  # fmt: skip
    quick = smaller(
        config, "1 epochs", config.train.run,
        search={"images": 512, "impact_images": 512},
        timing={"seconds": 10.0},
    )  # fmt: skip
    smoke = smaller(
        config, "1 steps", _SMOKE_RUN,
        data={"batch_size": 8, "eval_batch_size": 32, "train_limit": 64, "test_limit": 32},
        model=dataclasses.asdict(SMOKE_MODEL),
        perforation={"source": "random"},
        search={"images": 16, "impact_images": 16, "batch_size": 16, "steps": 1,
                "kinds": ("grid",)},
        timing={"batches": (1,), "seconds": 0.0},
    )  # fmt: skip
    return Experiment(
        id=f"perforated_cnn.resnet.resnet32-{row}",
        aliases=("perforated_cnn.resnet",) if row == "2x" else (),
        title=f"trained ResNet-32 on CIFAR-10, perforated for {target:g}x fewer multiplications",
        row=f"resnet.resnet32-{row}",
        presets={"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)},
        runner="experiments.papers.perforated_cnn.experiments.searched:run",
        data="cifar10, and trained weights of the network",
        deviations=NOT_IN_PAPER,
        measures=("macs_reduction",),
        chosen={"macs_reduction": "target of the search"},
        recipe=("search.images", "search.impact_images", "search.batch_size", "search.runs"),
    )


def single_layer(kind: MaskKind) -> Experiment:
    """Defines one layer of ResNet-32 under masks of one kind, at increasing rates."""
    config = SingleLayerConfig(
        data=SourceDataConfig(name="cifar10", centre="source", standardise=False),
        model=CIFAR_MODEL,
        layer=LayerConfig(name="layer2_1/conv1", kind=kind, draws=3),
    )
    return Experiment(
        id=f"perforated_cnn.resnet.layer-{kind}",
        title=f"one layer of a trained ResNet-32 under {kind} masks",
        row=f"resnet.layer-{kind}",
        presets=single_layer_presets(config, smoke_model=SMOKE_MODEL),
        runner="experiments.papers.perforated_cnn.experiments.single_layer:run",
        data="cifar10, and trained weights of the network",
        deviations=(
            "A layer of ResNet-32 on CIFAR-10 instead of layers of AlexNet on ImageNet; regular "
            "masks, which are not in the paper, in place of those of a pooling layer's structure.",
        ),
        recipe=("layer.draws", "layer.images", "layer.impact_images", "layer.batch_size"),
    )
