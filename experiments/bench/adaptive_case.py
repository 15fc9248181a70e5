"""Networks of adaptive depth with random weights that spend a requested share of the FLOPs.

Batch statistics are measured on images. The biases of each block's halting heads are first set so
that all heads have the same mean logit, then shifted together until the block has the requested
share. Images are noise with the spectrum of photographs, so that masks are patches rather than
isolated positions.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets import create_model
from adaptive_nets.analysis.macs import layer_macs
from adaptive_nets.models import ModelOutput, full_output, list_models, model_entry
from adaptive_nets.models.adaptive.cost import block_flops
from adaptive_nets.models.adaptive.forms import plain_form
from adaptive_nets.models.adaptive.network import FOLDED
from adaptive_nets.models.adaptive.weights import head_name, is_head
from adaptive_nets.runtime.errors import UserError

# Bisection of the shift of biases ends within this distance of the requested share.
_TOLERANCE = 0.02
_STEPS = 9


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        name: Name of the network.
        height: Height of the images, pixels.
        width: Width of the images, pixels.
        batch: Number of images.
        seed: Seed of weights and images.
    """

    name: str = "resnet101_sact"
    height: int = 600
    width: int = 1000
    batch: int = 1
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Case:
    """Network with weights and images.

    Attributes:
        variables: Variables of the model.
        folded: The same variables, folded for skipping.
        output: Output of the model.
        stop_early: Share of positions that halt before the last unit, averaged over blocks.
    """

    variables: dict[str, Any]
    folded: dict[str, Any]
    output: ModelOutput
    stop_early: float


def photograph_like(rng: np.random.Generator, shape: tuple[int, int, int, int]) -> np.ndarray:
    """Returns noise with amplitude 1 / frequency, standard deviation 1 per image, float32."""
    rows, columns = np.fft.fftfreq(shape[1])[:, None], np.fft.rfftfreq(shape[2])[None]
    frequency = np.maximum(np.hypot(rows, columns), 1 / max(shape[1:3]))
    spectrum = np.fft.rfft2(rng.standard_normal(shape), axes=(1, 2))
    image = np.fft.irfft2(spectrum / frequency[None, ..., None], shape[1:3], axes=(1, 2))
    deviation = image.std(axis=(1, 2, 3), keepdims=True)
    return (image / deviation).astype(np.float32)


def plain_name(name: str) -> str:
    """Returns the name of a network of adaptive depth without halting.

    Raises:
        UserError: The network is not of adaptive depth.
    """
    if model_entry(name).adapts is None:
        known = [found for found in list_models() if model_entry(found).adapts is not None]
        raise UserError(f"{name!r} is not a network of adaptive depth; expected one of {known}")
    return plain_form(name)


class Network:
    """A network of adaptive depth beside its plain form, with weights, statistics and images.

    Attributes:
        settings: Settings of the measurement.
        model: Network of adaptive depth, in its skipping form.
        plain: The same network without halting.
        images: float[N, H, W, 3].
        block_macs: Multiply-accumulates of each block of the plain network, per image.
    """

    def __init__(self, settings: Settings):
        """Initialises weights, and measures the statistics of batch normalisation."""
        self.settings = settings
        rng = np.random.default_rng(settings.seed)
        size = (settings.height, settings.width)
        self.images = jnp.asarray(photograph_like(rng, (settings.batch, *size, 3)))
        self.plain: Any = create_model(plain_name(settings.name))
        self.model: Any = create_model(settings.name, execution="skipping")
        self.fold = jax.jit(self.model.fold)
        self.forward = jax.jit(functools.partial(full_output, self.model))
        init = jax.jit(lambda x: self.model.init(jax.random.key(settings.seed), x))
        variables = _with_bias(init(self.images[:, :64, :64]), lambda name, bias: bias - 30.0)
        # Several images: heads normalise by the variance of image means, which is 0 for one image.
        sides = (min(settings.height, 224), min(settings.width, 224))
        several = jnp.asarray(photograph_like(rng, (8, *sides, 3)))
        self._variables = _with_statistics(self.model, variables, several)
        ledger = layer_macs(plain_name(settings.name), input_shape=(*size, 3))
        self.block_macs = [
            sum(v for where, v in ledger.items() if f"/{self._prefix(stage)}" in where)
            for stage in range(len(self.model.stage_sizes))
        ]

    def _prefix(self, stage: int) -> str:
        return self.model.unit_name(stage, 0)[:-1]

    def case(self, *, stop_early: float | None = None, flops: float | None = None) -> Case:
        """Sets the biases of the heads for a share; exactly one is given.

        Args:
            stop_early: share of each block's positions that halt before its last unit.
            flops: FLOPs of each block over those of its plain form, heads included. A block may not
                reach it: its first unit runs everywhere.
        """
        variables = self._variables
        for stage, size in enumerate(self.model.stage_sizes):
            if size > 1:
                variables = self._shift_to_share(variables, stage, size, stop_early, flops)
        folded = self.fold(variables)
        output = self.forward(folded, self.images)
        early = [np.mean(np.asarray(b.num_units) < b.weights.shape[-1]) for b in output.blocks]
        return Case(variables, folded, output, round(float(np.mean(early)), 4))

    def _shift_to_share(
        self,
        variables: dict[str, Any],
        stage: int,
        size: int,
        stop_early: float | None,
        flops: float | None,
    ) -> dict[str, Any]:
        """Shifts the biases of a block's heads by bisection, since halting changes later inputs."""
        rule = self.model.halting.rule
        block = self.forward(self.fold(variables), self.images).blocks[stage]
        # Random heads differ in their means; with equal means, positions halt after every unit.
        start = {
            head_name(self.model.unit_name(stage, i), rule): -float(
                np.mean(np.asarray(block.halting_logits)[..., i])
            )
            for i in range(size - 1)
        }

        def moved(by: float) -> dict[str, Any]:
            return _with_bias(
                variables, lambda name, bias: bias + start[name] + by if name in start else bias
            )

        low, high, found = -20.0, 10.0, variables
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found = moved(middle)
            output = self.forward(self.fold(found), self.images)
            if flops is None:
                assert stop_early is not None
                units = np.asarray(output.blocks[stage].num_units)
                excess = float(np.mean(units < size)) - stop_early
            else:
                spent = float(np.mean(block_flops(self.model, output)[:, stage]))
                excess = flops - spent / (2 * self.block_macs[stage])
            if abs(excess) < _TOLERANCE:
                break
            low, high = (middle, high) if excess < 0 else (low, middle)
        return found

    def stage_inputs(self, case: Case) -> list[jax.Array]:
        """Returns the input of each block."""

        @jax.jit
        def inputs(folded, x):
            found: list[jax.Array] = []

            def run(stage, units, x):
                found.append(x)
                return skip_stage(self.model, folded, stage, units, x)

            with_stage_runner(self.model, folded, x, run)
            return found

        return inputs(case.folded, self.images)


def skip_stage(model: Any, folded: Any, stage: int, units: Any, x: jax.Array) -> jax.Array:
    """Runs a stage in the skipping form."""
    block = model.skipping_block(model.halting.mode(None, train=False))
    return block.run(units[0](x), folded[FOLDED].get(f"block_{stage}"), None)[0]


def with_stage_runner(
    network: Any, variables: Any, x: jax.Array, run: Callable[[int, Any, jax.Array], jax.Array]
) -> jax.Array:
    """Runs a network with `run(number, units, x)` for each stage."""

    def forward(module, x):
        numbers = itertools.count()
        return module.logits(x, False, lambda units, x, _: run(next(numbers), units, x))

    return network.apply(variables, x, method=forward)


def one_stage(
    network: Any, variables: Any, stage: int, x: jax.Array, run: Callable[[Any, jax.Array], Any]
) -> Any:
    """Returns `run(units, x)` of one stage; compilation removes the rest of the network."""
    found = []

    def run_stage(number, units, ignored):
        if number == stage:
            found.append(run(units, x))
        channels = units[0].features if hasattr(units[0], "features") else 4 * units[0].width
        return jnp.zeros((1, 1, 1, channels), ignored.dtype)

    with_stage_runner(network, variables, jnp.zeros((1, 32, 32, 3), x.dtype), run_stage)
    return found[0]


def _with_bias(variables: Any, change: Callable[[str, Any], Any]) -> dict[str, Any]:
    """Returns variables with changed biases of heads."""
    params = dict(variables["params"])
    for name in filter(is_head, params):
        head = dict(params[name])
        if "bias" in head:
            head["bias"] = change(name, head["bias"])
        else:
            dense = head["dense_global"]
            head["dense_global"] = {**dense, "bias": change(name, dense["bias"])}
        params[name] = head
    return {**variables, "params": params}


def _with_statistics(model: Any, variables: Any, images: jax.Array) -> dict[str, Any]:
    """Returns variables with the running statistics of the images; weights keep their scale."""
    fresh = jax.tree.map(jnp.zeros_like, variables["batch_stats"])

    @jax.jit
    def measure(variables, x):
        rngs = {"halting": jax.random.key(0)}
        options: dict[str, Any] = {"train": True, "execution": "dense"}
        return model.apply(variables, x, rngs=rngs, mutable=["batch_stats"], **options)[1]

    found = measure({**variables, "batch_stats": fresh}, images)["batch_stats"]
    # One update from zero leaves (1 − momentum) times the measured value.
    share = 1 - getattr(model, "momentum", 0.9)
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / share, found)}


def plain_variables(case: Case) -> dict[str, Any]:
    """Returns the plain network's part of the variables."""
    return {
        kind: {name: value for name, value in tree.items() if not is_head(name)}
        for kind, tree in case.variables.items()
    }
