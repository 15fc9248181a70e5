"""The values that describe one training run: plain, frozen, and typed flags of the command line.

What changes the trained network is in `DataConfig`, `ModelConfig`, `OptimiserConfig` and
`ScheduleConfig` (and in the groups that a paper adds); `MeshConfig` and `RunConfig` say where and
how the run is carried out and may differ between an interrupted run and its continuation.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.duration import Duration


def require(condition: bool, flag: str, value: object, expected: str) -> None:
    """Raises `UserError` naming flag, value and what was expected, unless the condition holds."""
    if not condition:
        raise UserError(f"--{flag} is {value!r}; expected {expected}")


def require_duration(text: str, flag: str) -> None:
    """Raises `UserError` unless the text is a length of training."""
    Duration.parse(text, name=f"--{flag}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What the network is trained and tested on."""

    name: str = "mnist"
    """Name of the data set, see 'adaptive-nets data list'."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Where it may come from; auto takes the first of tfds, files and embedded that is there."""
    batch_size: int = 100
    """Examples per optimiser step, over all devices."""
    eval_batch_size: int = 1000
    """Examples per step of evaluation, over all devices."""
    accumulation: int = 1
    """Parts that a batch is split into, one after the other, to save memory."""
    pixel_scale: float = 255.0
    """Pixels are divided by this."""
    centre: Literal["none", "channel", "pixel"] = "channel"
    """Mean of the training set that is subtracted: none, one per channel, or one per pixel."""
    standardise: bool = False
    """Divide by the training set's standard deviation per channel too."""
    per_image: bool = False
    """Give every image mean 0 and deviation 1 of its own, after cropping and flipping."""
    crop_padding: int = 0
    """Zero pixels added on each side before a random crop in training."""
    flip: bool = False
    """Mirror half of the training images left to right."""
    labels: Literal["true", "random"] = "true"
    """Training labels: the true ones, or drawn uniformly once; test labels stay true."""
    random_label_seed: int = 74632
    """Seed of the random labels."""
    train_limit: int = 0
    """Take the first so many training images only; 0 for all."""
    test_limit: int = 0
    """Take the first so many test images only; 0 for all."""

    def __post_init__(self):
        require(self.batch_size > 0, "data.batch-size", self.batch_size, "a positive number")
        require(
            self.eval_batch_size > 0,
            "data.eval-batch-size",
            self.eval_batch_size,
            "a positive number",
        )
        require(self.pixel_scale > 0, "data.pixel-scale", self.pixel_scale, "a positive number")
        require(self.crop_padding >= 0, "data.crop-padding", self.crop_padding, "0 or more pixels")
        require(self.train_limit >= 0, "data.train-limit", self.train_limit, "0 or more images")
        require(self.test_limit >= 0, "data.test-limit", self.test_limit, "0 or more images")
        require(
            self.accumulation > 0 and self.batch_size % self.accumulation == 0,
            "data.accumulation",
            self.accumulation,
            f"a divisor of the batch size {self.batch_size}",
        )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network."""

    name: str = "lenet_300_100"
    """Name in the zoo, see 'adaptive-nets models'."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation; parameters and the loss stay in float32."""


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """How a gradient becomes an update."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser; sgd has momentum."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of sgd, first-moment decay of adam."""
    nesterov: bool = False
    """Nesterov's form of the momentum (sgd only)."""
    second_moment_decay: float = 0.999
    """Second-moment decay of adam."""
    epsilon: float = 1e-8
    """Added to adam's denominator."""
    weight_decay: float = 0.0
    """Coefficient of L2 on kernels: in the loss for sgd and adam, decoupled for adamw."""
    clip_norm: float = 0.0
    """Largest global norm of the gradient; 0 for no clipping."""
    label_smoothing: float = 0.0
    """Share of the target distribution that is spread over all classes."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is evaluated; 0 evaluates the weights."""

    def __post_init__(self):
        require(
            self.learning_rate > 0,
            "optimiser.learning-rate",
            self.learning_rate,
            "a positive number",
        )
        for field in ("momentum", "second_moment_decay", "label_smoothing", "ema_decay"):
            value = getattr(self, field)
            flag = "optimiser." + field.replace("_", "-")
            require(0 <= value < 1, flag, value, "a number in [0, 1)")
        for field in ("weight_decay", "clip_norm"):
            value = getattr(self, field)
            require(value >= 0, "optimiser." + field.replace("_", "-"), value, "0 or more")


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
    """How long, and the learning rate over time."""

    length: str = "200 epochs"
    """Length of training: steps, epochs or examples."""
    kind: Literal["constant", "linear", "cosine", "step"] = "linear"
    """After warm-up and hold: constant, linear or cosine to zero, or multiplied at boundaries."""
    warmup: str = "0%"
    """Linear warm-up from zero."""
    hold: str = "0%"
    """Time at the peak, warm-up included, before a linear or cosine decay begins."""
    boundaries: tuple[str, ...] = ()
    """When the kind 'step' multiplies the rate."""
    factor: float = 0.1
    """What it multiplies by."""

    def __post_init__(self):
        require_duration(self.length, "schedule.length")
        require_duration(self.warmup, "schedule.warmup")
        require_duration(self.hold, "schedule.hold")
        for boundary in self.boundaries:
            require_duration(boundary, "schedule.boundaries")
        require(
            Duration.parse(self.length).unit != "percent" and Duration.parse(self.length).value > 0,
            "schedule.length",
            self.length,
            "a positive number of steps, epochs or examples",
        )
        require(self.factor > 0, "schedule.factor", self.factor, "a positive number")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How the devices of all processes are arranged; all of them are used."""

    data: int = 0
    """Devices that share the batch; 0 for all that --mesh.model leaves."""
    model: int = 1
    """Devices that share the output channels of large layers; the rest share the batch."""
    shard_parameters: bool = False
    """Divide parameters, moments and averages over the devices that share the batch too."""
    shard_from: int = 65536
    """Layers with fewer weights than this are copied to every device."""

    def __post_init__(self):
        require(self.data >= 0, "mesh.data", self.data, "0 or more devices")
        require(self.model > 0, "mesh.model", self.model, "a positive number")
        require(self.shard_from >= 0, "mesh.shard-from", self.shard_from, "0 or more weights")


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """How the processes of a run find each other; a run is one process unless something is given.

    Either the three values of `--distributed.coordinator`, or a cluster that says them. The file
    system is shared: data root and `--out` are the same folders for every process.
    """

    coordinator: str | None = None
    """HOST:PORT that process 0 listens on, the same for every process."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    cluster: Literal["off", "auto", "slurm", "ompi", "mpi4py", "gcetpu", "gketpu"] = "off"
    """Ask the cluster for what is not given; auto finds out which one it is, Kubernetes too."""
    heartbeat_seconds: int = 60
    """A process that was not heard of for so long takes the others down."""
    start_seconds: int = 300
    """How long the processes wait for each other in the beginning."""

    def __post_init__(self):
        seconds = "a positive number of seconds"
        require(
            self.heartbeat_seconds > 0,
            "distributed.heartbeat-seconds",
            self.heartbeat_seconds,
            seconds,
        )
        require(self.start_seconds > 0, "distributed.start-seconds", self.start_seconds, seconds)
        if self.coordinator is not None:
            require(
                re.fullmatch(r"\S+:\d{1,5}", self.coordinator) is not None,
                "distributed.coordinator",
                self.coordinator,
                "HOST:PORT",
            )
        if self.num_processes is not None:
            require(
                self.num_processes > 0,
                "distributed.num-processes",
                self.num_processes,
                "a positive number",
            )
        if self.process_id is not None:
            last = self.num_processes
            require(
                self.process_id >= 0 and (last is None or self.process_id < last),
                "distributed.process-id",
                self.process_id,
                "0 or more" if last is None else f"0 to {last - 1}",
            )
        given = {
            "coordinator": self.coordinator,
            "num-processes": self.num_processes,
            "process-id": self.process_id,
        }
        missing = [name for name, value in given.items() if value is None]
        if self.cluster == "off" and 0 < len(missing) < len(given):
            name = missing[0]
            require(
                False, f"distributed.{name}", None, "a value, since others of the kind are given"
            )

    @property
    def is_requested(self) -> bool:
        """Whether there is anything to join."""
        return self.coordinator is not None or self.cluster != "off"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What is written while training, and when."""

    log_every: str = "1%"
    """Time between two lines of training metrics."""
    eval_every: str = "2%"
    """Time between two evaluations on the test set."""
    checkpoint_every: str = "5%"
    """Time between two checkpoints; one more is written at the end and when interrupted."""
    keep_checkpoints: int = 3
    """Newest checkpoints that are kept."""
    tensorboard: bool = True
    """Write TensorBoard event files beside the JSON lines."""
    profile: tuple[int, int] = (0, 0)
    """First step to profile, and how many; traces go to profile/ in the run's folder."""
    input_workers: int = 0
    """Processes that decode images of a set that is read while training; 0 for threads alone."""
    input_threads: int = 16
    """Threads that decode at once, in each of these processes."""
    input_prefetch: int = 2
    """Batches that are read ahead."""

    def __post_init__(self):
        for field in ("log_every", "eval_every", "checkpoint_every"):
            require_duration(getattr(self, field), "run." + field.replace("_", "-"))
        require(
            self.keep_checkpoints >= 2, "run.keep-checkpoints", self.keep_checkpoints, "2 or more"
        )
        for field, least in (("input_workers", 0), ("input_threads", 1), ("input_prefetch", 1)):
            value = getattr(self, field)
            require(value >= least, "run." + field.replace("_", "-"), value, f"{least} or more")
        require(
            min(self.profile) >= 0,
            "run.profile",
            self.profile,
            "a first step and a number of steps",
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything about one training run but its seed."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()
    run: RunConfig = RunConfig()
