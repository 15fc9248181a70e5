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
from experiments.papers.meta_layer.fields import NetworkConfig, StudyConfig
from experiments.suite import config as config_lib
from experiments.suite.experiment import Bound, Experiment, Preset

RUNNER = "experiments.papers.meta_layer.experiment:run"

KINDS = {
    "conv2d": "ordinary convolutions",
    "conv3d": "3-D convolutions in place of convolutions",
    "meta": "Meta layers in place of convolutions",
    "head": "Meta head",
}
_TESTS = {1: "3 convolutions", 2: "6 convolutions", 3: "32 residual blocks"}

_EPOCH_DEVIATION = (
    "An epoch is 390 batches of 128 images; the 80 images left are not used. The authors' loader "
    "makes a smaller batch of them."
)
_DEVIATIONS = (
    _EPOCH_DEVIATION,
    "The running variance of batch normalisation is the mean of biased batch variances; PyTorch's "
    "is of unbiased ones.",
)
_VARIANT = "The variant is ours; the article has no value of its accuracy."
_BASELINE = (
    "the authors' stored run seems to continue the training of a network that was trained before"
)

# Pixels from -1 to 1. Results do not depend on the evaluation batch.
_DATA = DataConfig(
    name="cifar10", batch_size=128, eval_batch_size=128, pixel_scale=127.5, centre="middle"
)
_OPTIMISER = OptimiserConfig(name="adam", learning_rate=1e-3)
_SCHEDULE = ScheduleConfig(length="20 epochs", kind="constant")
_SMOKE_RUN = RunConfig(log_every="1 steps", eval_every="1 steps", checkpoint_every="2 steps")


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Sizes of the presets of a test.

    Attributes:
        seeds: seeds of the preset paper.
        quick: training images, test images (0 for all) and length of the preset quick.
        day: length of the preset day; empty for none.
        checkpoint: interval between checkpoints.
        accuracy: plausible accuracies of the preset paper, %.
    """

    seeds: int
    quick: tuple[int, int, str]
    checkpoint: str
    accuracy: tuple[float, float]
    day: str = ""


_SIZES = {
    1: _Sizes(10, (20_000, 0, "2 epochs"), "1 epochs", (65, 78)),
    2: _Sizes(2, (10_000, 0, "2 epochs"), "200 steps", (74, 88)),
    3: _Sizes(1, (5_000, 2_000, "1 epochs"), "50 steps", (78, 89), day="4 epochs"),
}


def _presets(test: int, kind: str, network: NetworkConfig, seeds: int) -> dict[str, Preset]:
    sizes = _SIZES[test]
    config = StudyConfig(
        TrainConfig(
            data=_DATA,
            model=ModelConfig(name=f"meta_study_{kind}_{test}"),
            optimiser=_OPTIMISER,
            schedule=_SCHEDULE,
            run=RunConfig(
                log_every="1 epochs", eval_every="1 epochs", checkpoint_every=sizes.checkpoint
            ),
        ),
        network,
    )
    train, tests, length = sizes.quick

    def resized(length: str, **groups: Any) -> StudyConfig:
        schedule = dataclasses.replace(_SCHEDULE, length=length)
        return config_lib.replace_groups(config, schedule=schedule, **groups)

    quick = resized(length, data=dataclasses.replace(_DATA, train_limit=train, test_limit=tests))
    # Two batches of the authors' test set, the last one smaller.
    smoke = resized(
        "2 steps",
        data=dataclasses.replace(_DATA, batch_size=16, train_limit=64, test_limit=144),
        # The residual networks take a minute to compile.
        model=ModelConfig(name=f"meta_study_{kind}_{min(test, 2)}"),
        run=_SMOKE_RUN,
    )
    made = {"smoke": Preset(smoke), "quick": Preset(quick)}
    if sizes.day:
        made["day"] = Preset(resized(sizes.day))
    published = network == NetworkConfig()
    bounds = (Bound("accuracy", *sizes.accuracy),) if published else ()
    return {**made, "paper": Preset(config, seeds=seeds, bounds=bounds)}


def _published(test: int, kind: str) -> Experiment:
    """Defines training of one of the twelve networks of the article's tables."""
    first = (test, kind) == (1, "conv2d")
    return Experiment(
        id=f"meta_layer.test{test}.{kind}",
        title=f"CIFAR-10, test {test} ({_TESTS[test]}), {KINDS[kind]}",
        row=f"test{test}.{kind}",
        presets=_presets(test, kind, NetworkConfig(), _SIZES[test].seeds),
        runner=RUNNER,
        data="cifar10",
        deviations=_DEVIATIONS,
        explanations={"accuracy": _BASELINE} if first else {},
        measures=("parameters", "accuracy"),
    )


@dataclasses.dataclass(frozen=True)
class Variant:
    """Network that the article does not have, and the one that it is compared with.

    Attributes:
        name: last part of the id, after "variants.test1-".
        test: number of the test.
        kind: kind of the published network that it varies.
        title: title in one line, without data and test.
        network: its options.
        seeds: seeds of the preset paper.
        varies: kind of the published network that it is compared with; `kind` if empty.
        macs: whether the values of the paper have its multiply-accumulates.
    """

    name: str
    test: int
    kind: str
    title: str
    network: NetworkConfig
    seeds: int = 1
    varies: str = ""
    macs: bool = False

    @property
    def row(self) -> str:
        """Id of its row in the paper's values."""
        return f"variants.test{self.test}-{self.name}"

    @property
    def id(self) -> str:
        """Id of its experiment."""
        return f"meta_layer.{self.row}"

    @property
    def reference(self) -> str:
        """Id of the experiment of the published network that it is compared with."""
        return f"meta_layer.test{self.test}.{self.varies or self.kind}"


def _text_convolutions(filters: int) -> Variant:
    title = f"3-D convolution in text form, {filters} filters"
    network = NetworkConfig(form="text", filters=filters)
    return Variant(f"conv3d-text-s{filters}", 1, "conv3d", title, network, seeds=3, macs=True)


def _text_head(test: int, groups: int) -> Variant:
    title = f"Meta head in text form, {groups} groups"
    network = NetworkConfig(form="text", groups=groups)
    seeds = 3 if test == 1 else 1
    return Variant(f"head-text-g{groups}", test, "head", title, network, seeds)


def _low_rank(test: int, rank: int) -> Variant:
    title = f"dense head, first layer of rank {rank}"
    network = NetworkConfig(head="low_rank", rank=rank)
    seeds = 3 if test == 1 else 1
    return Variant(f"head-rank{rank}", test, "conv2d", title, network, seeds, varies="head")


def _of_tests_1_and_2(
    name: str, kind: str, title: str, network: NetworkConfig
) -> tuple[Variant, Variant]:
    return (
        Variant(name, 1, kind, title, network, seeds=3),
        Variant(name, 2, kind, title, network),
    )


VARIANTS = (
    *(_text_convolutions(filters) for filters in (2, 4, 8, 16)),
    Variant(
        "meta-ordered", 2, "meta", "Meta layers, groups next to channels before pooling",
        NetworkConfig(scrambled=False),
    ),
    *_of_tests_1_and_2(
        "meta-softmax", "meta", "Meta layers, softmax of the weights",
        NetworkConfig(meta_init="softmax"),
    ),
    *_of_tests_1_and_2(
        "meta-scaled", "meta", "Meta layers, weights of deviation 1/√N",
        NetworkConfig(meta_init="scaled"),
    ),
    *(_text_head(1, groups) for groups in (2, 8)),
    *(_text_head(2, groups) for groups in (2, 4, 8, 16)),
    _text_head(3, 16),
    *_of_tests_1_and_2(
        "head-identity", "head", "Meta head, Meta layer left out", NetworkConfig(head="grouped")
    ),
    Variant(
        "head-grouped-g16", 2, "head", "grouped dense head, 16 groups of 4 outputs",
        NetworkConfig(head="grouped", form="text", groups=16),
    ),
    _low_rank(1, 10),
    _low_rank(2, 4),
    _low_rank(2, 8),
    *_of_tests_1_and_2(
        "head-pooled", "head", "global average pooling and one dense layer",
        NetworkConfig(head="gap"),
    ),
)  # fmt: skip


def _variant(variant: Variant) -> Experiment:
    return Experiment(
        id=variant.id,
        title=f"CIFAR-10, test {variant.test}, {variant.title}",
        row=variant.row,
        presets=_presets(variant.test, variant.kind, variant.network, variant.seeds),
        runner=RUNNER,
        data="cifar10",
        deviations=(_VARIANT, *_DEVIATIONS),
        measures=("parameters", "macs") if variant.macs else ("parameters",),
    )


EXPERIMENTS = (
    *(_published(test, kind) for test in _TESTS for kind in KINDS),
    *(_variant(variant) for variant in VARIANTS),
)
