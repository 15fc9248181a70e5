"""Experiments of the paper's Table 1, of a small set of photographs, and their presets."""

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
from experiments.papers.sact_detection.fields import (
    AdaptiveDetectorTrainConfig,
    DetectorConfig,
    DetectorTrainConfig,
    HaltingConfig,
    ImagesConfig,
    StartConfig,
    TimingConfig,
)
from experiments.suite.experiment import Experiment, Preset

IDS = "sact.coco"
RUNNER = "experiments.papers.sact_detection.experiment:run"
RECIPE = (
    *(f"images.{field.name}" for field in dataclasses.fields(ImagesConfig)),
    *(f"detector.{field.name}" for field in dataclasses.fields(DetectorConfig)),
    "timing.batches",
)  # fmt: skip

_OFTEN = RunConfig(log_every="1%", eval_every="10%", checkpoint_every="5%", input_threads=4)
_SMOKE_RUN = RunConfig(log_every="50%", eval_every="100%", checkpoint_every="100%", input_threads=2)
# Images are normalised as the backbone was trained.
_COCO_DATA = DataConfig(name="coco", batch_size=16, eval_batch_size=8, centre="source")
_COCO_OPTIMISER = OptimiserConfig(
    name="sgd", learning_rate=0.02, momentum=0.9, weight_decay=1e-4, clip_norm=10.0
)
_COCO_SCHEDULE = ScheduleConfig(
    length="90000 steps", kind="step", warmup="1%",
    boundaries=("66.7%", "88.9%"), factor=0.1,
)  # fmt: skip
# Cells of 10 to 80 pixels; the shared map of a network for small images has stride 2.
_CELLS = DetectorConfig(
    anchor_sizes=(16.0, 32.0, 48.0, 80.0),
    aspect_ratios=(0.7, 1.0, 1.4),
    channels=64,
    stride=4,
    candidates=400,
    proposals=64,
    anchor_samples=128,
    region_samples=32,
)
_BCCD_IMAGES = ImagesConfig(train=("train", "val"), test="test", short=192, long=256, multiple=8)
_BCCD_DATA = DataConfig(name="bccd", batch_size=2, eval_batch_size=4, centre="source")
_BCCD_OPTIMISER = OptimiserConfig(name="adam", learning_rate=1e-3, clip_norm=5.0)

_SCHEDULE_UNKNOWN = (
    "Batch, learning rate and length of the training are not recovered; ours are the customary "
    "90,000 steps of 16 images with a rate of 0.02, divided by 10 after 60,000 and 80,000.",
    "Training and test images are the splits train and val of COCO 2017; those of the paper are "
    "not recovered.",
    "Anchors, numbers of samples and thresholds follow the original Faster R-CNN.",
)
_STANDS_IN = (
    "BCCD, 364 photographs of blood cells, stands in for COCO at a size that trains on a "
    "processor; the paper has no measurement on it.",
    "The backbone is a ResNet-32 for CIFAR-10, trained on classification, with its first two "
    "blocks shared and the third for each region.",
)


def _smoke(config: DetectorTrainConfig) -> DetectorTrainConfig:
    """Returns the configuration on generated pictures, with the smallest backbone."""
    train = config.train
    adaptive = isinstance(config, AdaptiveDetectorTrainConfig)
    small = dataclasses.replace(
        train,
        data=dataclasses.replace(train.data, batch_size=2),
        model=ModelConfig(name="resnetv1_20_sact_cifar10" if adaptive else "resnet20_cifar10"),
        schedule=dataclasses.replace(train.schedule, length="2 steps"),
        run=_SMOKE_RUN,
    )
    detector = dataclasses.replace(
        config.detector,
        anchor_sizes=(12.0, 24.0), channels=16, stride=2, candidates=40, proposals=8,
        anchor_samples=32, region_samples=8, crop_size=6, reference="",
    )  # fmt: skip
    return dataclasses.replace(
        config,
        train=small,
        images=dataclasses.replace(config.images, generated=True, short=48, long=64, multiple=8),
        detector=detector,
        start=StartConfig(weights="random"),
        timing=TimingConfig(batches=0),
    )


def _presets(config: DetectorTrainConfig, **lengths: str) -> dict[str, Preset]:
    """Returns the presets; those that are named have other lengths than the preset paper."""
    presets = {"smoke": Preset(_smoke(config))}
    for name, length in lengths.items():
        train = config.train
        schedule = dataclasses.replace(train.schedule, length=length)
        data = train.data
        if name == "quick" and data.name == "coco":
            data = dataclasses.replace(data, batch_size=2, test_limit=200)
        train = dataclasses.replace(train, schedule=schedule, data=data)
        presets[name] = Preset(dataclasses.replace(config, train=train))
    return {**presets, "paper": Preset(config)}


def _recipe(tau: float | None) -> tuple[str, ...]:
    """Returns the values of the recipe, of a fixed depth if tau is None."""
    return RECIPE if tau is None else (*RECIPE, "halting.tau_ramp")


def _coco(
    row: str, title: str, backbone: str, *, tau: float | None = None, reference: str = ""
) -> Experiment:
    """Defines a row of Table 1."""
    train = TrainConfig(
        data=_COCO_DATA,
        model=ModelConfig(name=backbone),
        optimiser=_COCO_OPTIMISER,
        schedule=_COCO_SCHEDULE,
        run=_OFTEN,
    )
    detector = DetectorConfig(reference=reference)
    config = (
        DetectorTrainConfig(train, detector=detector)
        if tau is None
        else AdaptiveDetectorTrainConfig(train, detector=detector, halting=HaltingConfig(tau=tau))
    )
    spread = () if tau is None else ("flops_share_std",)
    return Experiment(
        id=f"{IDS}.{row}",
        title=title,
        row=f"coco.{row}",
        presets=_presets(config, quick="400 steps"),
        runner=RUNNER,
        data="coco, and a network trained on ImageNet",
        deviations=_SCHEDULE_UNKNOWN,
        measures=("flops_share", *spread, "ap"),
        recipe=_recipe(tau),
    )


def _bccd(row: str, title: str, backbone: str, *, tau: float | None = None) -> Experiment:
    """Defines a detector of blood cells."""
    train = TrainConfig(
        data=_BCCD_DATA,
        model=ModelConfig(name=backbone),
        optimiser=_BCCD_OPTIMISER,
        schedule=ScheduleConfig(length="12000 steps", kind="cosine", warmup="2%"),
        run=_OFTEN,
    )
    config = (
        DetectorTrainConfig(train, _BCCD_IMAGES, _CELLS)
        if tau is None
        else AdaptiveDetectorTrainConfig(
            train, _BCCD_IMAGES, _CELLS, halting=HaltingConfig(tau=tau, tau_ramp="20%")
        )
    )
    return Experiment(
        id=f"{IDS}.bccd-{row}",
        title=title,
        row=f"bccd.{row}",
        presets=_presets(config, quick="400 steps", day="4000 steps"),
        runner=RUNNER,
        data="bccd, and trained weights of ResNet-32 for CIFAR-10",
        deviations=_STANDS_IN,
        recipe=_recipe(tau),
    )


EXPERIMENTS = (
    _coco("resnet101", "Faster R-CNN on ResNet-101, COCO", "resnetv2_101"),
    _coco(
        "resnet50",
        "Faster R-CNN on ResNet-50, COCO",
        "resnetv2_50",
        reference="resnetv2_101",
    ),
    _coco(
        "resnet101-sact-tau5e-3",
        "Faster R-CNN on ResNet-101 SACT, tau 0.005, COCO",
        "resnet101_sact",
        tau=0.005,
    ),
    _coco(
        "resnet101-sact-tau1e-3",
        "Faster R-CNN on ResNet-101 SACT, tau 0.001, COCO",
        "resnet101_sact",
        tau=0.001,
    ),
    _bccd("resnet32", "Faster R-CNN on ResNet-32, blood cells", "resnet32_cifar10"),
    _bccd(
        "resnet32-sact",
        "Faster R-CNN on ResNet-32 SACT, tau 0.01, blood cells",
        "resnetv1_32_sact_cifar10",
        tau=0.01,
    ),
    _bccd(
        "resnet32-sact-tau3e-2",
        "Faster R-CNN on ResNet-32 SACT, tau 0.03, blood cells",
        "resnetv1_32_sact_cifar10",
        tau=0.03,
    ),
)
