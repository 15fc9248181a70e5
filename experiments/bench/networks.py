"""Time of a network's forward pass."""

from __future__ import annotations

import dataclasses
import statistics
import time

import jax

from adaptive_nets import count_macs, create_model
from adaptive_nets.models import model_entry


@dataclasses.dataclass(frozen=True)
class ForwardTime:
    """One network at one batch size.

    Attributes:
        name: of the network.
        batch: images per pass.
        macs: multiply-accumulates per image.
        compile_seconds: from `create_model` to the first output.
        seconds: median time of a pass.
    """

    name: str
    batch: int
    macs: int
    compile_seconds: float
    seconds: float


def time_forward(name: str, *, batch: int, rounds: int) -> ForwardTime:
    """Compiles and times a forward pass with random weights and inputs."""
    began = time.perf_counter()
    model = create_model(name)
    images = jax.random.normal(jax.random.key(1), (batch, *model_entry(name).input_shape))
    variables = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(images[:1])
    forward = jax.jit(lambda variables, x: model.apply(variables, x, train=False))
    jax.block_until_ready(forward(variables, images))
    compile_seconds = time.perf_counter() - began
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(forward(variables, images))
        times.append(time.perf_counter() - began)
    return ForwardTime(
        name, batch, count_macs(name), round(compile_seconds, 3), statistics.median(times)
    )
