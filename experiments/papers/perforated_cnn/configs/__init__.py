"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses
from typing import Any

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.perforated_cnn.configs import residual, ruled
from experiments.papers.perforated_cnn.configs.fields import (
    DEVICES,
    KINDS,
    Device,
    LayerConfig,
    NetworkConfig,
    NinConfig,
    PerforationConfig,
    SearchConfig,
    SearchedNinConfig,
    SingleLayerConfig,
    TradeoffConfig,
    TradeoffRunConfig,
)
from experiments.papers.perforated_cnn.configs.sizes import single_layer_presets, smaller
from experiments.suite.experiment import Bound, Experiment, Preset

__all__ = ["EXPERIMENTS", "NetworkConfig", "NinConfig"]

_FOLDER = "experiments.papers.perforated_cnn.experiments"
TRAINING = f"{_FOLDER}.training:run"
SEARCHED = f"{_FOLDER}.searched:run"
SINGLE_LAYER = f"{_FOLDER}.single_layer:run"
TRADEOFF = f"{_FOLDER}.tradeoff:run"

# The training recipe is ours, since the paper's is unknown. The published initial weights shrink
# the signal a hundredfold, so that the loss does not fall for hundreds of steps.
_NIN_TRAINING = TrainConfig(
    data=DataConfig(
        name="cifar10", batch_size=128, eval_batch_size=500, centre="pixel", standardise=True
    ),
    model=ModelConfig(name="nin_cifar10"),
    optimiser=OptimiserConfig(learning_rate=5e-4, weight_decay=1e-4),
    schedule=ScheduleConfig(length="200 epochs", kind="linear", warmup="5%"),
    run=RunConfig(log_every="1%", eval_every="5%", checkpoint_every="5%"),
)
_NIN = NinConfig(_NIN_TRAINING)
_BRIEF = RunConfig(log_every="2%", eval_every="25%", checkpoint_every="10%")
_SHORT_RUN = RunConfig(log_every="10%", eval_every="50%", checkpoint_every="50%")
_SMOKE_RUN = RunConfig(log_every="100%", eval_every="100%", checkpoint_every="100%")
_SMOKE_DATA = {"batch_size": 8, "eval_batch_size": 32, "train_limit": 64, "test_limit": 32}


def _shorter(length: str, data: dict[str, Any], **groups: dict[str, Any]) -> NinConfig:
    return smaller(_NIN, length, _BRIEF, data=data, **groups)


def _tuned(config: type, **groups: Any) -> Any:
    """Returns a configuration of fine-tuning: a tenth of the learning rate and of the epochs.

    The network begins at the end of a decayed schedule, and Adam without second moments: the rate
    warms up, so that first steps of the full rate in every weight do not undo the training.
    """
    train = dataclasses.replace(
        _NIN_TRAINING,
        optimiser=dataclasses.replace(_NIN_TRAINING.optimiser, learning_rate=5e-5),
        schedule=ScheduleConfig(length="20 epochs", kind="linear", warmup="10%"),
    )
    return config(train, **groups)


# Recipe of short fine-tunings of a network from a short training without dropout. The noise of few
# small batches is proportional to the rate: at 5e-5 it exceeds what 200 steps repair.
_SHORT_TUNING: dict[str, dict[str, Any]] = {
    "data": {"batch_size": 32},
    "network": {"dropout_rate": 0.0},
    "optimiser": {"learning_rate": 2e-5},
}


_TUNING = (
    "Learning rate and length of the paper's fine-tuning are unknown; ours are a tenth of the rate "
    "of training, with a warm-up over the first tenth and linear decay, and a tenth of its epochs.",
)
_SEARCH_RULES = (
    "Among candidates that do not increase the loss, the search takes the greatest saving, where "
    "the paper's ratio takes the smallest (--search.order ratio). Times are measured once per "
    "layer and number of positions, and a step must save more than their noise.",
)
# Dropout and initialisation belong to the training recipe, which the paper does not state.
_RECIPE = ("network.dropout_rate", "network.kernel_init", "network.active_outputs")
_SEARCH_SIZES = ("search.images", "search.impact_images", "search.batch_size", "search.runs")


def _searched(row: int, target: float, device: Device) -> Experiment:
    config = _tuned(
        SearchedNinConfig,
        perforation=PerforationConfig(device=device),
        search=SearchConfig(target=target),
    )
    quick = smaller(
        config, "200 steps", _SHORT_RUN,
        search={"images": 1000, "impact_images": 512, "runs": 9},
        timing={"seconds": 10.0},
        **_SHORT_TUNING,
    )  # fmt: skip
    smoke = smaller(
        config, "1 steps", _SMOKE_RUN,
        data=_SMOKE_DATA,
        perforation={"source": "random"},
        search={
            "images": 16, "impact_images": 16, "batch_size": 16, "steps": 1, "repetitions": 1,
            "cost": "macs",
        },
        timing={"batches": (1,), "seconds": 0.0},
    )  # fmt: skip
    return Experiment(
        id=f"perforated_cnn.table3.nin-{device}-{row}x",
        title=f"NIN on CIFAR-10, perforated for a {row}x speed-up on a {device.upper()}",
        row=f"table3.nin-{device}-{row}x",
        presets={"smoke": Preset(smoke), "quick": Preset(quick), "paper": Preset(config)},
        runner=SEARCHED,
        data="cifar10, and a run of perforated_cnn.table1.nin",
        deviations=(*_SEARCH_RULES, *_TUNING, *ruled.MACS),
        measures=(
            "speedup", "macs_reduction", "memory_reduction", "error_increase",
            "tuned_error_increase",
        ),
        chosen={
            "speedup" if config.search.cost == "time" else "macs_reduction": "target of the search"
        },
        recipe=(*_RECIPE, *_SEARCH_SIZES),
    )  # fmt: skip


def _single_layer(name: str, kind: Any) -> Experiment:
    config = SingleLayerConfig(model=_NIN_TRAINING.model, layer=LayerConfig(kind=kind))
    return Experiment(
        id=f"perforated_cnn.figure.single-layer-{name}",
        title=f"one layer of NIN under {name.replace('-', ' ')} masks",
        row=f"figure.single-layer-{name}",
        presets=single_layer_presets(config),
        runner=SINGLE_LAYER,
        data="cifar10, and a run of perforated_cnn.table1.nin",
        deviations=("conv2 of NIN on CIFAR-10 instead of layers of AlexNet on ImageNet.",),
        measures=("speed_share",),
        recipe=("layer.draws", "layer.images", "layer.impact_images", "layer.batch_size"),
    )


_TRADEOFF = _tuned(TradeoffRunConfig, tradeoff=TradeoffConfig())

EXPERIMENTS = (
    Experiment(
        id="perforated_cnn.table1.nin",
        title="network in network on CIFAR-10, unperforated",
        row="table1.nin",
        presets={
            "smoke": Preset(
                _shorter("2 steps", _SMOKE_DATA)
            ),
            # Dropout slows a training of little more than one epoch.
            "quick": Preset(
                _shorter(
                    "2000 steps", {"batch_size": 32}, network={"dropout_rate": 0.0},
                ),
                bounds=(Bound("error", 25, 85),),
            ),
            "paper": Preset(_NIN, bounds=(Bound("error", 9, 13),)),
        },
        runner=TRAINING,
        data="cifar10",
        measures=("error",),
        recipe=_RECIPE,
        deviations=(
            "Images are centred per pixel and scaled per channel instead of whitened.",
            "The paper's training recipe is unknown; ours is He-normal initialisation, biases of 1 "
            "in the last layer, and Adam with linear decay.",
        ),
    ),
    ruled.error("alexnet"),
    ruled.error("vgg16"),
    ruled.cost("nin", 128),
    ruled.cost("alexnet", 16),
    ruled.cost("vgg16", 16),
    ruled.conv2("4of5", 4 / 5),
    ruled.conv2("5of6", 5 / 6),
    *(_searched(times, float(times), device) for device in DEVICES for times in (2, 3)),
    *(
        ruled.whole(network, device, times)
        for network in ("alexnet", "vgg16")
        for device in DEVICES
        for times in (2, 3, 4)
    ),
    *(_single_layer(kind.replace("pooling", "pooling-structure"), kind) for kind in KINDS),
    Experiment(
        id="perforated_cnn.figure.nin-tradeoff",
        title="NIN on CIFAR-10: perforation, larger stride, smaller images",
        row="figure.nin-tradeoff",
        presets={
            "smoke": Preset(
                smaller(
                    _TRADEOFF, "1 steps", _SMOKE_RUN,
                    data=_SMOKE_DATA,
                    perforation={"source": "random"},
                    tradeoff={
                        "keeps": (0.5,), "sizes": (16,), "draws": 1, "impact_images": 16,
                        "batch_size": 16,
                    },
                    timing={"batches": (1,), "seconds": 0.0},
                )
            ),
            "quick": Preset(
                smaller(
                    _TRADEOFF, "50 steps", _SMOKE_RUN,
                    data={"batch_size": 32, "test_limit": 2000},
                    network=_SHORT_TUNING["network"],
                    optimiser=_SHORT_TUNING["optimiser"],
                    tradeoff={"impact_images": 512},
                    timing={"seconds": 20.0},
                )
            ),
            "paper": Preset(_TRADEOFF),
        },
        runner=TRADEOFF,
        data="cifar10, and a run of perforated_cnn.table1.nin",
        measures=("perforation_best",),
        recipe=(
            *_RECIPE, "tradeoff.search", "tradeoff.draws", "tradeoff.impact_images",
            "tradeoff.batch_size",
        ),
        deviations=(
            "Perforation and stride keep the same fraction in all layers unless --tradeoff.search "
            "names a search.",
            "The paper does not say how many masks it draws; here every point with random masks or "
            "offsets is the mean of several, tuned as long as the whole network beside it.",
            *_TUNING,
        ),
    ),
    *map(residual.searched, residual.TARGETS),
    *map(residual.single_layer, residual.KINDS),
)  # fmt: skip
