"""Times training steps of networks of the zoo beside the same networks in PyTorch."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

import jax
import numpy as np

from adaptive_nets import create_model
from adaptive_nets.data.splits import Dataset, Split
from adaptive_nets.models import model_entry
from adaptive_nets.training.classification import classification_task
from adaptive_nets.training.config import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimiserConfig,
    ScheduleConfig,
    TrainConfig,
)
from adaptive_nets.training.setup import set_up
from experiments.bench.torch_peer import LAYOUTS, NetworkJob, TorchPeer
from experiments.shared.timing import time_interleaved

OURS = "ours"
# Batches that the synthetic training set holds.
_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Time of one contender's training step.

    Attributes:
        network: Network as the user wrote it.
        contender: "ours", or PyTorch with a layout.
        batch: Examples per step.
        seconds_per_step: Median time of a step.
        examples_per_second: Examples per second at this time.
        ratio: Median over rounds of our time over the contender's in the same round.
        rounds: Number of rounds, in which contenders take turns.
    """

    network: str
    contender: str
    batch: int
    seconds_per_step: float
    examples_per_second: float
    ratio: float
    rounds: int

    @property
    def text(self) -> str:
        """The time for a line of progress."""
        return f"{1e3 * self.seconds_per_step:.0f} ms"


def synthetic(shape: tuple[int, ...], classes: int, examples: int) -> Dataset:
    """Returns a data set of noise, uint8 images of a shape (H, W, C)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, *shape), np.uint8)
    split = Split(images, rng.integers(0, classes, examples).astype(np.int32))
    return Dataset(
        name="noise", source="embedded", location="memory", num_classes=classes, class_names=(),
        train=split, test=split, fingerprint="", complete=True,
    )  # fmt: skip


def time_steps(
    name: str,
    options: dict[str, Any],
    *,
    label: str,
    batch_size: int,
    mesh: MeshConfig,
    seconds: float,
    peer: TorchPeer | None,
) -> list[StepTime]:
    """Times the training step of `run` on a resident data set, SGD with momentum 0.9.

    Args:
        name: name of the network.
        options: its options.
        label: name in the result.
        batch_size: examples per step.
        mesh: mesh of devices.
        seconds: approximate time of all rounds together.
        peer: PyTorch process, which takes the faster of its two layouts; None for ours alone.
    """
    entry = model_entry(name)
    config = TrainConfig(
        data=DataConfig(batch_size=batch_size, eval_batch_size=batch_size, standardise=True),
        model=ModelConfig(name=name),
        optimiser=OptimiserConfig(name="sgd", learning_rate=1e-3, weight_decay=1e-4),
        schedule=ScheduleConfig(length="1000000 steps"),
        mesh=mesh,
    )
    data = synthetic(entry.input_shape, entry.num_classes, _BATCHES * batch_size)
    setup = set_up(classification_task(create_model(name, **options)), config, data, seed=0)
    state = setup.create_state()

    def ours() -> None:
        nonlocal state
        # Always from step 0: the shuffle of a new epoch is not part of a step.
        state = jax.block_until_ready(setup.feed.advance(state, 0, 1))

    contenders: dict[str, Any] = {OURS: ours}
    if peer is not None and name in peer.networks:
        jobs = [
            NetworkJob(
                name, (batch_size, *entry.input_shape), entry.num_classes, layout, options,
                warm=1, kind="training",
            )
            for layout in LAYOUTS
        ]  # fmt: skip
        fastest = min(jobs, key=peer.time)
        contender = f"PyTorch, {fastest.layout.replace('_', ' ')}"
        contenders[contender] = lambda: peer.time(fastest)
    times = time_interleaved(contenders, seconds=seconds)
    found = []
    for contender, values in times.items():
        median = statistics.median(values)
        ratios = [mine / other for mine, other in zip(times[OURS], values, strict=True)]
        found.append(
            StepTime(
                network=label,
                contender=contender,
                batch=batch_size,
                seconds_per_step=round(median, 6),
                examples_per_second=round(batch_size / median, 2),
                ratio=round(statistics.median(ratios), 4),
                rounds=len(values),
            )
        )
    return found
