"""Configuration of a training run: frozen dataclasses, each field a typed command-line flag.

`DataConfig`, `ModelConfig`, `OptimiserConfig`, `ScheduleConfig` and the groups that a paper adds
determine the trained network. `MeshConfig` and `RunConfig` determine only the execution and may
change when a run is resumed.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated, Literal

from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.ranges import (
    INT32_MAX,
    Count,
    DurationRange,
    EvalBatch,
    FlagGroup,
    Interval,
    Length,
    Moment,
    NonNegative,
    Positive,
    Range,
    Seed,
    Share,
    Size,
    Threads,
    Workers,
)

# A divisor of pixels; beyond these, normalised pixels leave the range of float32.
PixelScale = Annotated[float, Range(1e-3, 1e6)]


def require(condition: bool, flag: str, value: object, expected: str) -> None:
    """Raises a `UserError` with flag, value and expectation unless the condition holds."""
    if not condition:
        raise UserError(f"--{flag} is {value!r}; expected {expected}")


@dataclasses.dataclass(frozen=True)
class DataConfig(FlagGroup, flags="data"):
    """Data set, batches and normalisation."""

    name: str = "mnist"
    """Name of the data set, see 'adaptive-nets data list'."""
    source: Literal["auto", "tfds", "files", "embedded"] = "auto"
    """Source of the data set; auto takes the first of tfds, files and embedded that is there."""
    batch_size: Annotated[int, Range(1, 2**20)] = 100
    """Examples per optimiser step, over all devices; a multiple of their number."""
    eval_batch_size: EvalBatch = 1000
    """Examples per step of evaluation, rounded up to a multiple of the number of devices."""
    accumulation: Count = 1
    """Number of gradient accumulation parts of a batch, to save memory."""
    pixel_scale: PixelScale = 255.0
    """Divisor of the pixel values."""
    centre: Literal["none", "channel", "pixel", "middle", "source"] = "channel"
    """Mean of the training set that is subtracted: none, one per channel, or one per pixel; middle
    subtracts 127.5 instead, so that a pixel scale of 127.5 gives [-1, 1]; source normalises as the
    network was trained that a run starts from."""
    standardise: bool = False
    """Divide by the standard deviation of the training set, per channel."""
    mean: Annotated[tuple[float, ...], Range(0, 1)] = ()
    """Mean per channel of pixels in [0, 1] that is subtracted in place of the training set's."""
    std: Annotated[tuple[float, ...], Range(1e-6, 1e6)] = ()
    """Deviation per channel of pixels in [0, 1], the divisor in place of the training set's."""
    per_image: bool = False
    """Standardise every image to mean 0 and deviation 1, after cropping and flipping."""
    crop_padding: Annotated[int, Range(0, 1024)] = 0
    """Zero padding on each side before the random crop of training images, in pixels."""
    flip: bool = False
    """Flip training images left to right with probability 1/2."""
    crop_area: Annotated[tuple[float, float], Range(0, 1, open_low=True)] = (0.08, 1.0)
    """Smallest and largest area of random crops of streamed photographs, as shares of the image."""
    colour_distortion: bool = False
    """Change brightness, saturation, hue and contrast of training images at random."""
    random_operations: Annotated[int, Range(0, 16)] = 0
    """Random operations of every training image, RandAugment's N; 0 for none."""
    random_magnitude: Annotated[float, Range(0, 100)] = 45.0
    """Largest magnitude of these operations, RandAugment's M."""
    labels: Literal["true", "random"] = "true"
    """Training labels: true, or drawn uniformly once; test labels stay true."""
    random_label_seed: Seed = 74632
    """Seed of the random labels."""
    train_limit: Size = 0
    """Number of training images, taken from the front; 0 for all."""
    test_limit: Size = 0
    """Number of test images, taken from the front; 0 for all."""

    def __post_init__(self):
        super().__post_init__()
        require(
            len(self.mean) == len(self.std),
            "data.std",
            self.std,
            f"{len(self.mean)} values, as many as --data.mean has",
        )
        low, high = self.crop_area
        require(
            low <= high,
            "data.crop-area",
            self.crop_area,
            "two shares of the image above 0 and up to 1, the smaller first",
        )
        require(
            self.batch_size % self.accumulation == 0,
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
class OptimiserConfig(FlagGroup, flags="optimiser"):
    """Optimiser, regularisation and moving average."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """Optimiser; sgd has momentum."""
    learning_rate: Positive = 1e-3
    """Peak learning rate."""
    momentum: Share = 0.9
    """Momentum of sgd; first-moment decay of adam."""
    nesterov: bool = False
    """Use Nesterov momentum (sgd only)."""
    second_moment_decay: Share = 0.999
    """Second-moment decay of adam."""
    epsilon: Positive = 1e-8
    """Constant added to the denominator of adam."""
    weight_decay: NonNegative = 0.0
    """Weight decay of kernels: in the gradient (L2) for sgd and adam, decoupled for adamw."""
    clip_norm: NonNegative = 0.0
    """Global norm at which gradients are clipped; 0 for no clipping."""
    label_smoothing: Share = 0.0
    """Label smoothing: share of the target distribution spread over all classes."""
    ema_decay: Share = 0.0
    """Decay of the exponential moving average of the weights for evaluation; 0 for none."""


@dataclasses.dataclass(frozen=True)
class ScheduleConfig(FlagGroup, flags="schedule"):
    """Length of training and learning-rate schedule."""

    length: Length = "200 epochs"
    """Length of training: steps, epochs or examples."""
    kind: Literal["constant", "linear", "cosine", "step"] = "linear"
    """Schedule after warm-up and hold: constant, linear or cosine decay to 0, or steps."""
    warmup: Moment = "0%"
    """Length of the linear warm-up from 0."""
    hold: Moment = "0%"
    """Start of the linear or cosine decay, counted from step 0."""
    boundaries: Annotated[tuple[str, ...], DurationRange("moment")] = ()
    """Times at which the kind 'step' multiplies the learning rate by the factor."""
    factor: Positive = 0.1
    """Factor of the kind 'step'."""


@dataclasses.dataclass(frozen=True)
class MeshConfig(FlagGroup, flags="mesh"):
    """Mesh over all devices of all processes."""

    data: Size = 0
    """Size of the data axis, which shards the batch; 0 for the rest of the devices."""
    model: Count = 1
    """Size of the model axis, which shards the output channels of large layers."""
    shard_parameters: bool = False
    """Shard parameters, moments and averages over the data axis too."""
    shard_from: Size = 65536
    """Smallest number of elements of an array that is sharded; smaller ones are replicated."""


@dataclasses.dataclass(frozen=True)
class DistributedConfig(FlagGroup, flags="distributed"):
    """Processes of a run; a single process unless a coordinator or a cluster is given.

    Coordinator, number of processes and process id are given together, or a cluster provides them.
    All processes share the data root and `--out` on one file system.
    """

    coordinator: str | None = None
    """Address HOST:PORT of process 0, the same for every process."""
    num_processes: Annotated[int | None, Range(1, INT32_MAX)] = None
    """Number of processes."""
    process_id: Annotated[int | None, Range(0, INT32_MAX)] = None
    """Index of this process, from 0."""
    cluster: Literal["off", "auto", "slurm", "ompi", "mpi4py", "gcetpu", "gketpu"] = "off"
    """Cluster that provides the values not given; auto detects it, Kubernetes too."""
    heartbeat_seconds: Annotated[int, Range(1, 10**6)] = 60
    """Heartbeat timeout: a process silent for longer counts as lost, and the others exit."""
    start_seconds: Annotated[int, Range(1, 10**6)] = 300
    """Time limit for all processes to connect at the start, in seconds."""

    def __post_init__(self):
        super().__post_init__()
        if self.coordinator is not None:
            require(
                re.fullmatch(r"\S+:\d{1,5}", self.coordinator) is not None,
                "distributed.coordinator",
                self.coordinator,
                "HOST:PORT",
            )
        last = self.num_processes
        if self.process_id is not None and last is not None:
            require(
                self.process_id < last,
                "distributed.process-id",
                self.process_id,
                f"0 to {last - 1}",
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
class RunConfig(FlagGroup, flags="run"):
    """Logging, evaluation, checkpoints and input of a training run."""

    log_every: Interval = "1%"
    """Interval between logged training metrics."""
    eval_every: Interval = "2%"
    """Interval between evaluations on the test set."""
    checkpoint_every: Interval = "5%"
    """Interval between checkpoints; one more is written at the end and on interruption."""
    keep_checkpoints: Annotated[int, Range(2, INT32_MAX)] = 3
    """Number of newest checkpoints to keep."""
    tensorboard: bool = True
    """Write TensorBoard event files beside the JSON lines."""
    profile: Annotated[tuple[int, int], Range(0, INT32_MAX)] = (0, 0)
    """First step to profile and number of steps; traces go to profile/ in the run's folder."""
    input_workers: Workers = 0
    """Worker processes that decode images of a streamed data set; 0 for threads alone."""
    input_threads: Threads = 16
    """Decoding threads of each process."""
    input_prefetch: Threads = 2
    """Number of prefetched batches."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Configuration of one training run; its seed is given separately."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    mesh: MeshConfig = MeshConfig()
    run: RunConfig = RunConfig()
