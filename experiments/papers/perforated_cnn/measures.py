"""Costs of a perforated network: time, multiplications, memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.perforation import (
    ConvLayer,
    LayerMask,
    PerforationPlan,
    activation_bytes,
    make_plan,
    perforate,
)
from adaptive_nets.perforation.candidates import cost_key, searched_layers
from adaptive_nets.perforation.interpreter import Interpolation
from adaptive_nets.runtime.errors import UserError
from experiments.papers.perforated_cnn.configs.fields import TimingConfig
from experiments.shared.timing import time_interleaved
from experiments.suite.experiment import Metric
from kernels.perforated_conv import perforated_conv

Apply = Callable[[Any, Any], Any]


def check_device(wanted: str) -> None:
    """Checks that JAX runs on a device of the given kind.

    Raises:
        UserError: JAX runs on another kind of device.
    """
    here = jax.default_backend()
    if here != wanted:
        raise UserError(
            f"--perforation.device is {wanted!r}, but JAX runs on {here!r}; expected a "
            f"{wanted.upper()}, since the row states its times; run a row of a {here.upper()} here"
        )


def random_images(batch: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Returns standard normal float32[batch, H, W, C], for timing."""
    return np.random.default_rng(0).standard_normal((batch, *shape), np.float32)


def interleaved_seconds(
    networks: Mapping[str, Any], variables: Any, images: np.ndarray, *, seconds: float
) -> dict[str, tuple[float, ...]]:
    """Times forward passes of several networks in turns.

    Args:
        networks: Name -> object with ``apply(variables, images, train=False)``.
        variables: Variables of all networks.
        images: The batch.
        seconds: Approximate duration of all rounds.

    Returns:
        Name -> seconds by round.
    """
    x = jax.device_put(images)

    def make_forward_pass(network) -> Callable[[], None]:
        forward = jax.jit(lambda variables, x: network.apply(variables, x, train=False))

        def once() -> None:
            jax.block_until_ready(forward(variables, x))

        return once

    return time_interleaved(
        {name: make_forward_pass(n) for name, n in networks.items()}, seconds=seconds
    )


def speed_metrics(
    model: nn.Module,
    variables: Any,
    plan: PerforationPlan,
    *,
    image_shape: tuple[int, int, int],
    macs_reduction: float,
    config: TimingConfig,
    interpolation: Interpolation = "implicit",
    announce: Callable[[str], None] = lambda text: None,
) -> dict[str, Metric]:
    """Times the network whole and perforated at every batch size.

    Metrics without a batch size in their name are those of the last one.

    Args:
        model: The network.
        variables: Its variables.
        plan: Its perforation.
        image_shape: (H, W, C).
        macs_reduction: Factor of reduced multiplications; "efficiency" is the speed-up over it.
        config: Batch sizes and durations.
        interpolation: see `perforate`.
        announce: Called with one line per batch size.
    """
    metrics: dict[str, Metric] = {}
    for batch in config.batches:
        perforated = perforate(model, variables, plan, interpolation=interpolation)
        networks = {"whole": model, "perforated": perforated}
        times = interleaved_seconds(
            networks, variables, random_images(batch, image_shape), seconds=config.seconds
        )
        before, after = (statistics.median(times[name]) for name in networks)
        rounds = len(times["whole"])
        speedup = statistics.median(
            slow / fast for slow, fast in zip(times["whole"], times["perforated"], strict=True)
        )
        note = f"batch {batch}, median over interleaved rounds"
        of_batch = {
            "milliseconds": Metric(1e3 * before / batch, "ms", rounds, note),
            "perforated_milliseconds": Metric(1e3 * after / batch, "ms", rounds, note),
            "speedup": Metric(speedup, "x", rounds, note),
            "efficiency": Metric(speedup / macs_reduction, "x", rounds, note),
        }
        metrics |= {f"{name}_batch{batch}": metric for name, metric in of_batch.items()}
        # Overwritten by the next batch size: the last one is the paper's.
        metrics |= of_batch
        announce(f"batch {batch}: {speedup:.2f} x faster with {macs_reduction:.2f} x fewer MACs")
    return metrics


def cost_metrics(
    model: nn.Module,
    variables: Any,
    plan: PerforationPlan,
    *,
    image_shape: tuple[int, int, int],
    macs: ExecutedMacs,
) -> dict[str, Metric]:
    """Returns MACs and activation memory of one image, before and after perforation."""
    left = macs(plan)
    before = activation_bytes(model, variables, image_shape)
    after = activation_bytes(model, variables, image_shape, plan)
    return {
        "macs": Metric(macs.whole / 1e9, "10^9"),
        "perforated_macs": Metric(left / 1e9, "10^9"),
        "macs_reduction": Metric(macs.whole / left, "x"),
        "memory": Metric(before.stored / 1e6, "MB", 1, "all activations of one image"),
        "perforated_memory": Metric(after.stored / 1e6, "MB", 1, "all activations of one image"),
        "memory_reduction": Metric(before.stored / after.stored, "x"),
        "peak_memory": Metric(before.peak / 1e6, "MB", 1, "at one time"),
        "perforated_peak_memory": Metric(after.peak / 1e6, "MB", 1, "at one time"),
    }


def plan_with_fewer_macs(
    key: jax.Array,
    layers: Sequence[ConvLayer],
    macs: ExecutedMacs,
    *,
    reduction: float,
    falloff: float = 0.0,
    kind: Any = "grid",
    model: str = "",
) -> PerforationPlan:
    """Perforates all layers that the paper perforates by one rule, as little as is sufficient.

    A layer with n times the positions of the smallest layer keeps the fraction k·n^(−falloff), with
    the largest k that reaches the reduction.

    Args:
        key: Key of the masks.
        layers: All convolutions of the network.
        macs: Counter of the multiply-accumulates of a plan.
        reduction: Least factor of reduced multiply-accumulates.
        falloff: Power of the rule; 0 for equal fractions.
        kind: Kind of the masks.
        model: Name of the network.

    Raises:
        UserError: No fraction reaches the reduction.
    """
    if reduction == 1:
        return make_plan(key, layers, {}, model=model)
    chosen = searched_layers(layers)
    fewest = min(layer.positions for layer in chosen)
    counted: dict[str, int] = {}

    def plan_of(keep: float) -> PerforationPlan:
        rates = {}
        for layer in chosen:
            fraction = keep * (fewest / layer.positions) ** falloff
            # A layer too small for the fraction keeps two positions.
            rates[layer.name] = 1 - min(1.0, max(fraction, 2 / layer.positions))
        return make_plan(key, layers, rates, kind, model=model)

    def is_enough(keep: float) -> bool:
        plan = plan_of(keep)
        name = cost_key(plan)
        if name not in counted:
            counted[name] = macs(plan)
        return counted[name] * reduction <= macs.whole

    low, high = 1e-3, max(layer.positions / fewest for layer in chosen) ** falloff
    if not is_enough(low):
        most = macs.whole / macs(plan_of(low))
        raise UserError(
            f"--rule.reduction is {reduction}; expected a factor that {len(chosen)} layers can "
            f"reach, at most {most:.3g}"
        )
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if is_enough(middle) else (low, middle)
    return plan_of(low)


def layer_metrics(
    layer: ConvLayer, mask: LayerMask, *, batch: int, seconds: float
) -> dict[str, Metric]:
    """Measures the speed-up of one layer alone, with compact output.

    Args:
        layer: The layer; its padding is taken as evenly split.
        mask: Its perforation.
        batch: Number of images.
        seconds: Approximate duration.
    """
    rng = np.random.default_rng(0)
    (high, wide), (down, right) = layer.kernel_size, layer.strides
    shape = (batch, *layer.input_size, layer.channels)
    x = jax.device_put(rng.standard_normal(shape, np.float32))
    kernel = (high, wide, layer.channels // layer.groups, layer.outputs)
    w = jax.device_put(rng.standard_normal(kernel, np.float32))
    padding = []
    for axis, (size, stride) in enumerate(((high, down), (wide, right))):
        total = (layer.output_size[axis] - 1) * stride + size - layer.input_size[axis]
        padding.append((max(total, 0) // 2, max(total, 0) - max(total, 0) // 2))

    def convolve(kept: np.ndarray, nearest: np.ndarray | None) -> Callable[[], None]:
        compute = jax.jit(
            lambda x, w: perforated_conv(
                x, w, kept, strides=layer.strides, padding=padding, groups=layer.groups,
                fill="compact", nearest=nearest,
            )
        )  # fmt: skip

        def once() -> None:
            jax.block_until_ready(compute(x, w))

        return once

    whole = convolve(np.ones(layer.output_size, bool), None)
    contenders = {"whole": whole, "perforated": convolve(mask.mask, mask.nearest)}
    times = time_interleaved(contenders, seconds=seconds)
    speedup = statistics.median(
        slow / fast for slow, fast in zip(times["whole"], times["perforated"], strict=True)
    )
    note = f"{layer.name} alone, batch {batch}, median over interleaved rounds"
    return {
        "layer_speedup": Metric(speedup, "x", len(times["whole"]), note),
        "speed_share": Metric(100 * speedup * mask.keep, "%", len(times["whole"]), note),
    }
