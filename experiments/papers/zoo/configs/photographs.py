"""ImageNet: the networks of the zoo with their papers' recipes, as far as they are known."""

from __future__ import annotations

import dataclasses

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from experiments.papers.zoo.configs.presets import IMAGES, presets
from experiments.suite.experiment import Experiment

_DATA = DataConfig(name="imagenet", eval_batch_size=100, standardise=True, flip=True)
_RUN = RunConfig(log_every="1000 steps", eval_every="1 epochs", checkpoint_every="5000 steps")
_SGD = OptimiserConfig(name="sgd", learning_rate=0.1, momentum=0.9, weight_decay=1e-4)

_CROPS = (
    "Training crops have 8 to 100 % of the area and are resized, test images are one central crop "
    "of 224 pixels, whatever the paper's preprocessing.",
)
_PLATEAU = "The rate falls at fixed times; the paper lowers it when the validation error stalls."
_FOR_RMSPROP = (
    "SGD with momentum and clipping at 2; the paper uses RMSProp.",
    "Images of 224 pixels, too small for the auxiliary classifier of Inception-v3; the paper has "
    "299.",
    "Batches of 256 and a rate of 0.1; the paper's 20 to 50 workers have batches of 32 and a rate "
    "of 0.045.",
)


@dataclasses.dataclass(frozen=True)
class _Recipe:
    """Optimiser, batch and schedule of one paper, and the network of the preset smoke."""

    batch_size: int
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    deviations: tuple[str, ...] = ()
    # The smallest one; networks are built by the tests of the models.
    small: str = "nin_imagenet"


def _step(length: str, *boundaries: str, factor: float = 0.1) -> ScheduleConfig:
    return ScheduleConfig(length=length, kind="step", boundaries=boundaries, factor=factor)


def _sgd(rate: float, decay: float, **others: object) -> OptimiserConfig:
    return dataclasses.replace(_SGD, learning_rate=rate, weight_decay=decay, **others)  # pyright: ignore[reportArgumentType]


# Every two epochs by 0.94.
_INCEPTION_STEPS = tuple(f"{epoch} epochs" for epoch in range(2, 100, 2))
_INCEPTION = _Recipe(
    256,
    dataclasses.replace(_SGD, clip_norm=2.0, label_smoothing=0.1, ema_decay=0.9999),
    _step("100 epochs", *_INCEPTION_STEPS, factor=0.94),
    _FOR_RMSPROP,
)
_RECIPES = {
    "alexnet": _Recipe(
        128, _sgd(0.01, 5e-4), _step("90 epochs", "25%", "50%", "75%"), (_PLATEAU,)
    ),
    "vgg": _Recipe(
        256, _sgd(0.01, 5e-4), _step("74 epochs", "25%", "50%", "75%"), (_PLATEAU,)
    ),
    "nin": _Recipe(
        128, _sgd(0.01, 5e-4), _step("90 epochs", "33%", "66%"),
        ("The training of the published weights is not known; the recipe is ours.",),
    ),
    "googlenet": _Recipe(
        32, _sgd(0.01, 2e-4), ScheduleConfig(length="60 epochs", kind="linear"),
        (
            "Recipe of the BVLC replication, with linear instead of square-root decay; the paper's "
            "SGD is asynchronous.",
        ),
        # It has auxiliary classifiers.
        small="googlenet",
    ),
    "bn_inception": dataclasses.replace(
        _INCEPTION,
        optimiser=dataclasses.replace(_INCEPTION.optimiser, label_smoothing=0.0),
        deviations=("The recipe is that of Inception-v3 without label smoothing.", *_FOR_RMSPROP),
    ),
    "inception": _INCEPTION,
    "resnet": _Recipe(
        256, _SGD, _step("600000 steps", "25%", "50%", "75%"), (_PLATEAU,)
    ),
    "se": _Recipe(
        1024, _sgd(0.6, 1e-4), _step("100 epochs", "30 epochs", "60 epochs", "90 epochs"),
    ),
    "densenet": _Recipe(
        256, _sgd(0.1, 1e-4, nesterov=True), _step("90 epochs", "30 epochs", "60 epochs"),
    ),
    "stochastic": _Recipe(
        128, _sgd(0.1, 1e-4, nesterov=True), _step("90 epochs", "30 epochs", "60 epochs"),
        ("The recipe is that of fb.resnet.torch as we know it.",),
    ),
}  # fmt: skip

TOP1_AND_TOP5 = ("error", "top5_error")
# Row -> title, name in the zoo, recipe, measures that the paper states.
_NETWORKS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "alexnet": ("AlexNet of 2012", "alexnet_2012", "alexnet", TOP1_AND_TOP5),
    "vgg11": ("VGG-11", "vgg11", "vgg", TOP1_AND_TOP5),
    "vgg13": ("VGG-13", "vgg13", "vgg", TOP1_AND_TOP5),
    "vgg16": ("VGG-16", "vgg16", "vgg", TOP1_AND_TOP5),
    "googlenet": ("GoogLeNet", "googlenet_caffe", "googlenet", ("top5_error",)),
    "bn-inception": ("BN-Inception", "bn_inception", "bn_inception", TOP1_AND_TOP5),
    "inception-v3": ("Inception-v3", "inception_v3", "inception", TOP1_AND_TOP5),
    "inception-v4": ("Inception-v4", "inception_v4", "inception", TOP1_AND_TOP5),
    "inception-resnet-v1": (
        "Inception-ResNet-v1", "inception_resnet_v1", "inception", TOP1_AND_TOP5,
    ),
    "inception-resnet-v2": (
        "Inception-ResNet-v2", "inception_resnet_v2", "inception", TOP1_AND_TOP5,
    ),
    "resnet50": ("ResNet-50", "resnet50_caffe", "resnet", TOP1_AND_TOP5),
    "resnet101": ("ResNet-101", "resnet101_caffe", "resnet", TOP1_AND_TOP5),
    "resnet152": ("ResNet-152", "resnet152_caffe", "resnet", TOP1_AND_TOP5),
    "se-resnet50": ("SE-ResNet-50", "legacy_seresnet50", "se", TOP1_AND_TOP5),
    "se-resnet101": ("SE-ResNet-101", "legacy_seresnet101", "se", TOP1_AND_TOP5),
    "se-resnet152": ("SE-ResNet-152", "legacy_seresnet152", "se", TOP1_AND_TOP5),
    "se-resnext50": ("SE-ResNeXt-50", "legacy_seresnext50_32x4d", "se", TOP1_AND_TOP5),
    "se-resnext101": ("SE-ResNeXt-101", "legacy_seresnext101_32x4d", "se", TOP1_AND_TOP5),
    "se-bn-inception": ("SE-BN-Inception", "se_bn_inception", "se", TOP1_AND_TOP5),
    "senet154": ("SENet-154", "senet154", "se", TOP1_AND_TOP5),
    "densenet121": ("DenseNet-121", "densenet121", "densenet", TOP1_AND_TOP5),
    "densenet169": ("DenseNet-169", "densenet169", "densenet", TOP1_AND_TOP5),
    "densenet201": ("DenseNet-201", "densenet201", "densenet", TOP1_AND_TOP5),
    "densenet264": ("DenseNet-264", "densenet264", "densenet", TOP1_AND_TOP5),
    "constant-depth": ("ResNet-152, constant depth", "resnet152", "stochastic", ("error",)),
    "stochastic-depth": (
        "ResNet-152, stochastic depth", "stochastic_depth_resnet152", "stochastic", ("error",),
    ),
    "nin": ("NIN", "nin_imagenet", "nin", TOP1_AND_TOP5),
}  # fmt: skip


def _experiment(row: str) -> Experiment:
    title, model, name, measures = _NETWORKS[row]
    recipe = _RECIPES[name]
    config = TrainConfig(
        data=dataclasses.replace(_DATA, batch_size=recipe.batch_size),
        model=ModelConfig(name=model),
        optimiser=recipe.optimiser,
        schedule=recipe.schedule,
        run=_RUN,
    )
    few = {"batch_size": 4, "eval_batch_size": 4, "train_limit": 32, "test_limit": 8}
    return Experiment(
        id=f"zoo.imagenet.{row}",
        title=f"{title} on ImageNet",
        row=f"imagenet.{row}",
        presets=presets(
            config,
            quick={
                "schedule": {"length": "1000 steps"},
                "data": {"batch_size": min(recipe.batch_size, 64), "test_limit": 2000},
            },
            smoke={"model": {"name": recipe.small}, "data": few},
            quick_seeds=1,
        ),
        runner=IMAGES,
        data="imagenet",
        deviations=(*_CROPS, *recipe.deviations),
        measures=measures,
    )


EXPERIMENTS = tuple(map(_experiment, _NETWORKS))
