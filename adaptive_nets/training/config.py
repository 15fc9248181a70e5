"""Configuration of a training run: frozen dataclasses, each field a typed command-line flag.

`DataConfig`, `ModelConfig`, `OptimiserConfig`, `ScheduleConfig` and the groups that a paper adds
determine the trained network. `MeshConfig` and `RunConfig` determine only the execution and may
change when a run is resumed.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.duration import Duration


def require(condition: bool, flag: str, value: object, expected: str) -> None:
    """Raises a `UserError` with flag, value and expectation unless the condition holds."""
    if not condition:
        raise UserError(f"--{flag} is {value!r}; expected {expected}")


def require_duration(text: str, flag: str) -> None:
    """Raises a `UserError` unless the text is a `Duration`."""
    Duration.parse(text, name=f"--{flag}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data set, batches and normalisation."""

    name: str = "mnist"
    """Name of the data set, see 'adaptive-nets data list'."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data set; auto takes the first of tfds, files and embedded that is there."""
    batch_size: int = 100
    """Examples per optimiser step, over all devices."""
    eval_batch_size: int = 1000
    """Examples per step of evaluation, over all devices."""
    accumulation: int = 1
    """Number of gradient accumulation parts of a batch, to save memory."""
    pixel_scale: float = 255.0
    """Divisor of the pixel values."""
    centre: Literal["none", "channel", "pixel", "middle"] = "channel"
    """Mean of the training set that is subtracted: none, one per channel, or one per pixel; middle
    subtracts 127.5 instead, so that a pixel scale of 127.5 gives [-1, 1]."""
    standardise: bool = False
    """Divide by the standard deviation of the training set, per channel."""
    per_image: bool = False
    """Standardise every image to mean 0 and deviation 1, after cropping and flipping."""
    crop_padding: int = 0
    """Zero padding on each side before the random crop of training images, in pixels."""
    flip: bool = False
    """Flip training images left to right with probability 1/2."""
    crop_area: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest area of random crops of streamed photographs, as shares of the image."""
    colour_distortion: bool = False
    """Change brightness, saturation, hue and contrast of training images at random."""
    labels: Literal["true", "random"] = "true"
    """Training labels: true, or drawn uniformly once; test labels stay true."""
    random_label_seed: int = 74632
    """Seed of the random labels."""
    train_limit: int = 0
    """Number of training images, taken from the front; 0 for all."""
    test_limit: int = 0
    """Number of test images, taken from the front; 0 for all."""

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
        low, high = self.crop_area
        require(
            0 < low <= high <= 1,
            "data.crop-area",
            self.crop_area,
            "two shares of the image above 0 and up to 1, the smaller first",
        )
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
    """Network and dtype of its computation."""

    name: str = "lenet_300_100"
    """Name of the network, see 'adaptive-nets models'."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the computation; parameters and the loss stay in float32."""


@dataclasses.dataclass(frozen=True)
class OptimiserConfig:
    """Optimiser, regularisation and moving average."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser; sgd has momentum."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of sgd; first-moment decay of adam."""
    nesterov: bool = False
    """Use Nesterov momentum (sgd only)."""
    second_moment_decay: float = 0.999
    """Second-moment decay of adam."""
    epsilon: float = 1e-8
    """Constant added to the denominator of adam."""
    weight_decay: float = 0.0
    """Weight decay of kernels: in the gradient (L2) for sgd and adam, decoupled for adamw."""
    clip_norm: float = 0.0
    """Global norm at which gradients are clipped; 0 for no clipping."""
    label_smoothing: float = 0.0
    """Label smoothing: share of the target distribution spread over all classes."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights for evaluation; 0 for none."""

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
    """Length of training and learning-rate schedule."""

    length: str = "200 epochs"
    """Length of training: steps, epochs or examples."""
    kind: Literal["constant", "linear", "cosine", "step"] = "linear"
    """Schedule after warm-up and hold: constant, linear or cosine decay to 0, or steps."""
    warmup: str = "0%"
    """Length of the linear warm-up from 0."""
    hold: str = "0%"
    """Start of the linear or cosine decay, counted from step 0."""
    boundaries: tuple[str, ...] = ()
    """Times at which the kind 'step' multiplies the learning rate by the factor."""
    factor: float = 0.1
    """Factor of the kind 'step'."""

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
    """Mesh over all devices of all processes."""

    data: int = 0
    """Size of the data axis, which shards the batch; 0 for the rest of the devices."""
    model: int = 1
    """Size of the model axis, which shards the output channels of large layers."""
    shard_parameters: bool = False
    """Shard parameters, moments and averages over the data axis too."""
    shard_from: int = 65536
    """Smallest number of elements of an array that is sharded; smaller ones are replicated."""

    def __post_init__(self):
        require(self.data >= 0, "mesh.data", self.data, "0 or more devices")
        require(self.model > 0, "mesh.model", self.model, "a positive number")
        require(self.shard_from >= 0, "mesh.shard-from", self.shard_from, "0 or more weights")


@dataclasses.dataclass(frozen=True)
class DistributedConfig:
    """Processes of a run; a single process unless a coordinator or a cluster is given.

    Coordinator, number of processes and process id are given together, or a cluster provides them.
    All processes share the data root and `--out` on one file system.
    """

    coordinator: str | None = None
    """Address HOST:PORT of process 0, the same for every process."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""
    cluster: Literal["off", "auto", "slurm", "ompi", "mpi4py", "gcetpu", "gketpu"] = "off"
    """Cluster that provides the values not given; auto detects it, Kubernetes too."""
    heartbeat_seconds: int = 60
    """Heartbeat timeout: a process silent for longer counts as lost, and the others exit."""
    start_seconds: int = 300
    """Time limit for all processes to connect at the start, in seconds."""

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
            require(False, f"distributed.{name}", None, "a value, since the other ones are given")

    @property
    def is_requested(self) -> bool:
        """True if this process joins others."""
        return self.coordinator is not None or self.cluster != "off"


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Logging, evaluation, checkpoints and input of a training run."""

    log_every: str = "1%"
    """Interval between logged training metrics."""
    eval_every: str = "2%"
    """Interval between evaluations on the test set."""
    checkpoint_every: str = "5%"
    """Interval between checkpoints; one more is written at the end and on interruption."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep."""
    tensorboard: bool = True
    """Write TensorBoard event files beside the JSON lines."""
    profile: tuple[int, int] = (0, 0)
    """First step to profile and number of steps; traces go to profile/ in the run's folder."""
    input_workers: int = 0
    """Worker processes that decode images of a streamed data set; 0 for threads alone."""
    input_threads: int = 16
    """Decoding threads of each process."""
    input_prefetch: int = 2
    """Number of prefetched batches."""

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
    """Configuration of one training run; its seed is given separately."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()
    run: RunConfig = RunConfig()
