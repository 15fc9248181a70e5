"""Times perforated and masked convolutions beside the dense convolution of the same layer."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import masks
from experiments.shared.timing import medians, time_interleaved
from kernels import masked_conv, perforated_conv
from kernels._common.layer_shapes import LAYERS, UNITS, Layer, Unit
from kernels.dense_conv import conv_general_dilated
from kernels.masked_conv import choose as choose_masked
from kernels.masked_unit import dilate, masked_unit
from kernels.perforated_conv import choose as choose_perforated

DENSE, OURS, TORCH = "dense", "ours", "torch"
KINDS = ("grid", "random", "backward", "unit", "masked")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Selection of the cases.

    Attributes:
        kinds: Kinds of comparison, a subset of `KINDS`.
        pattern: Shell pattern of layers, such as 'VGG*'.
        batches: Batch sizes.
        keeps: Shares of kept positions, for fixed masks.
        fractions: Shares of active positions, for run-time masks.
        dtype: Dtype of inputs and weights.
        seconds: Approximate duration of each comparison.
        most_macs: Largest number of MACs per batch; larger layers are left out.
        implementation: Implementation of our convolutions; None for the dispatch's choice.
    """

    kinds: tuple[str, ...] = KINDS
    pattern: str = "*"
    batches: tuple[int, ...] = (1, 8, 32)
    keeps: tuple[float, ...] = (0.5, 0.25)
    fractions: tuple[float, ...] = (1.0, 0.75, 0.5, 0.25, 0.125, 0.05, 0.0)
    dtype: str = "float32"
    seconds: float = 1.0
    most_macs: float = 8e9
    implementation: str | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Times of one case.

    Attributes:
        kind: One of `KINDS`.
        layer: Network and name of the layer.
        channels: Smaller of the numbers of input and output channels.
        batch: Number of images.
        output: Kind of output: "nearest", "compact", "zeros" or "gradients".
        fraction: Share of computed positions.
        theory: MACs of the dense convolution over the MACs needed.
        implementation: Implementation that ran.
        seconds: Median time of each contender.
        weights_dominate: Whether the weights are larger than input and output together. Dense
            gradients, which read and transpose them, are then bound by memory.
    """

    kind: str
    layer: str
    channels: int
    batch: int
    output: str
    fraction: float
    theory: float
    implementation: str
    seconds: dict[str, float]
    weights_dominate: bool = False

    @property
    def speedup(self) -> float:
        """Speed-up against the fastest dense convolution of the run."""
        dense = min(self.seconds[name] for name in (DENSE, TORCH) if name in self.seconds)
        return dense / self.seconds[OURS]

    @property
    def speedup_over_xla(self) -> float:
        """Speed-up against XLA's dense convolution."""
        return self.seconds[DENSE] / self.seconds[OURS]

    @property
    def share(self) -> float:
        """Share of the theoretical speed-up; nan if the mask is empty."""
        return self.speedup / self.theory if np.isfinite(self.theory) else float("nan")


DenseJob = Callable[[Layer, int], Callable[[], float] | None]
"""(layer, batch) -> timer, in seconds, of another program's dense convolution; None without one."""


def compare(settings: Settings, other_dense: DenseJob | None = None) -> Iterator[Comparison]:
    """Measures the cases one by one.

    Args:
        settings: Selection of the cases.
        other_dense: Dense convolution of another program, timed beside XLA's.
    """
    rng = np.random.default_rng(0)
    layers = [layer for layer in LAYERS if fnmatch.fnmatch(layer.label, settings.pattern)]
    units = [unit for unit in UNITS if fnmatch.fnmatch(unit.label, settings.pattern)]
    for batch in settings.batches:
        for layer in layers:
            if layer.macs * batch > settings.most_macs:
                continue
            case = _LayerCase(layer, batch, settings, rng, other_dense)
            for kind, measure in (
                ("grid", case.perforated),
                ("random", case.perforated),
                ("backward", case.backward),
                ("masked", case.masked),
            ):
                if kind in settings.kinds:
                    yield from measure(kind)
        if "unit" in settings.kinds:
            for unit in units:
                yield from _units(unit, batch, settings, rng)


def _blocking(function: Callable, *arguments: Any) -> Callable[[], None]:
    compiled = jax.jit(function)

    def once() -> None:
        jax.block_until_ready(compiled(*arguments))

    return once


class _LayerCase:
    """Inputs of a layer and the comparisons that use them."""

    def __init__(self, layer, batch, settings, rng, other_dense) -> None:
        self.layer, self.batch, self.settings, self.rng = layer, batch, settings, rng
        self.other_dense = other_dense
        depth = layer.channels // layer.groups
        self.x = jnp.asarray(
            rng.standard_normal((batch, layer.size, layer.size, layer.channels)), settings.dtype
        )
        scale = (layer.window**2 * depth) ** -0.5
        shape = (layer.window, layer.window, depth, layer.outputs)
        self.w = jnp.asarray(scale * rng.standard_normal(shape), settings.dtype)
        self.options = {
            "strides": (layer.stride, layer.stride),
            "padding": ((layer.padding, layer.padding),) * 2,
            "groups": layer.groups,
        }
        self.size = (layer.output_size, layer.output_size)
        if settings.implementation:
            self.options["implementation"] = settings.implementation

    def dense(self, x, w):
        """Computes the dense convolution as the layers of a network do."""
        return conv_general_dilated(
            x, w, self.options["strides"], self.options["padding"],
            dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=self.layer.groups,
        )  # fmt: skip

    def _comparison(self, kind, output, fraction, theory, choice, contenders) -> Comparison:
        times = medians(time_interleaved(contenders, seconds=self.settings.seconds))
        name = choice.implementation
        if choice.detail and kind != "masked":
            name += f" ({choice.detail})"
        channels = min(self.layer.channels, self.layer.outputs)
        maps = self.x.size + self.batch * self.size[0] * self.size[1] * self.layer.outputs
        return Comparison(
            kind, self.layer.label, channels, self.batch, output, fraction, theory, name, times,
            weights_dominate=self.w.size > maps,
        )  # fmt: skip

    def _denses(self) -> dict[str, Callable]:
        contenders: dict[str, Callable] = {DENSE: _blocking(self.dense, self.x, self.w)}
        other = self.other_dense(self.layer, self.batch) if self.other_dense else None
        if other is not None:
            contenders[TORCH] = other
        return contenders

    def perforated(self, kind: str) -> Iterator[Comparison]:
        """Times the forward pass with fixed masks."""
        for keep in self.settings.keeps:
            mask = masks.fixed(kind, self.rng, self.size, keep)
            for fill in ("nearest", "compact"):
                options = {**self.options, "fill": fill}
                choice = choose_perforated(self.x, self.w, mask, **options)

                def ours(x, w, mask=mask, options=options):
                    return perforated_conv(x, w, mask, **options)

                contenders = {**self._denses(), OURS: _blocking(ours, self.x, self.w)}
                fraction = float(mask.mean())
                yield self._comparison(kind, fill, fraction, 1 / fraction, choice, contenders)

    def backward(self, kind: str) -> Iterator[Comparison]:
        """Times the gradients for x and w, through the compact output of random masks."""
        shape = (self.batch, *self.size, self.layer.outputs)
        full = jnp.asarray(self.rng.standard_normal(shape), self.x.dtype)
        for keep in self.settings.keeps:
            mask = masks.fixed("random", self.rng, self.size, keep)
            flat = full.reshape(self.batch, -1, self.layer.outputs)
            part = flat[:, np.flatnonzero(mask)]
            options = {**self.options, "fill": "compact"}

            def gradients(function):
                return lambda x, w, cotangent: jax.vjp(function, x, w)[1](cotangent)

            def ours(x, w, mask=mask, options=options):
                return perforated_conv(x, w, mask, **options)

            contenders = {
                DENSE: _blocking(gradients(self.dense), self.x, self.w, full),
                OURS: _blocking(gradients(ours), self.x, self.w, part),
            }
            choice = choose_perforated(self.x, self.w, mask, **options)
            fraction = float(mask.mean())
            yield self._comparison(kind, "gradients", fraction, 1 / fraction, choice, contenders)

    def masked(self, kind: str) -> Iterator[Comparison]:
        """Times the forward pass with run-time masks."""
        program = jax.jit(lambda x, w, mask: masked_conv(x, w, mask, **self.options))
        for fraction in self.settings.fractions:
            mask = jnp.asarray(masks.blobs(self.rng, (self.batch, *self.size), fraction))
            active = float(mask.mean())

            def ours(mask=mask):
                jax.block_until_ready(program(self.x, self.w, mask))

            choice = choose_masked(self.x, self.w, mask, **self.options)
            theory = 1 / active if active else float("inf")
            yield self._comparison(
                kind, "zeros", active, theory, choice, {**self._denses(), OURS: ours}
            )


class _Chain:
    """Unit applied repeatedly to its own output, whose buffer it may overwrite, as in a network."""

    def __init__(self, program: Callable, x: jax.Array, *arguments: Any) -> None:
        self.program = jax.jit(program, donate_argnums=0)
        self.x, self.arguments = jnp.copy(x), arguments

    def __call__(self) -> None:
        self.x = jax.block_until_ready(self.program(self.x, *self.arguments))


def _units(unit: Unit, batch: int, settings: Settings, rng) -> Iterator[Comparison]:
    x = jnp.asarray(
        rng.standard_normal((batch, unit.size, unit.size, unit.channels[0])), settings.dtype
    )
    # Small weights keep the map finite over any number of applications.
    weights = [
        jnp.asarray(1e-3 * rng.standard_normal(shape), settings.dtype)
        for shape in unit.kernel_shapes
    ]
    for fraction in settings.fractions:
        mask = jnp.asarray(masks.blobs(rng, x.shape[:3], fraction))

        def dense(x, mask, *weights):
            return masked_unit(x, mask, weights, execution_path="dense")

        def ours(x, mask, *weights):
            return masked_unit(x, mask, weights)

        contenders = {
            DENSE: _Chain(dense, x, mask, *weights),
            OURS: _Chain(ours, x, mask, *weights),
        }
        times = medians(time_interleaved(contenders, seconds=settings.seconds))
        yield Comparison(
            "unit", unit.label, min(unit.channels), batch, "zeros", float(mask.mean()),
            _unit_theory(unit, mask), "xla", times,
        )  # fmt: skip


def _unit_theory(unit: Unit, mask) -> float:
    """Returns the MACs of all positions over those that the mask needs."""
    needed, full = 0, 0
    for shape in reversed(unit.kernel_shapes):
        per_position = int(np.prod(shape))
        needed += per_position * int(mask.sum())
        full += per_position * mask.size
        mask = dilate(mask, shape[:2])
    return full / needed if needed else float("inf")
