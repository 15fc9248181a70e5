"""Times a network of adaptive depth in its skipping form beside the plain network.

Weights are random; batch statistics are measured on images. The biases of each block's halting
heads are first set so that all heads have the same mean logit, then shifted together until the
requested share of positions halts early. Images are noise with the spectrum of photographs, so that
masks are patches rather than isolated positions. The plain network runs the same weights without
heads, compiled by XLA alone.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets import create_model
from adaptive_nets.analysis import count_macs
from adaptive_nets.analysis.macs import layer_macs
from adaptive_nets.models import ModelOutput, full_output, list_models
from adaptive_nets.models.adaptive.cost import block_flops, flops_per_image
from adaptive_nets.models.adaptive.network import FOLDED
from adaptive_nets.models.adaptive.weights import head_name, is_head
from adaptive_nets.models.stages import run_sequentially
from adaptive_nets.runtime.errors import UserError
from experiments.shared.timing import medians, time_interleaved

PLAIN, SKIPPING = "plain", "skipping"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a measurement.

    Attributes:
        name: Name of the network.
        height: Height of the images, pixels.
        width: Width of the images, pixels.
        batch: Number of images.
        stop_early: Share of each block's positions that halt before its last unit.
        seconds: Approximate duration of one comparison.
        seed: Seed of weights and images.
    """

    name: str = "resnet101_sact"
    height: int = 600
    width: int = 1000
    batch: int = 1
    stop_early: float = 0.5
    seconds: float = 30.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Times of a network or of one of its blocks.

    Attributes:
        part: "network", "block 1", ...
        stop_early: Share of positions that halted early, averaged over blocks.
        flops_share: FLOPs per image, heads included, over those of the plain network.
        time_share: Median over rounds of the time over the plain network's in the same round.
        excess: time_share / flops_share; 1 if time falls in proportion to FLOPs.
        seconds: Median time by contender.
        rounds: Number of rounds, in which contenders take turns.
    """

    part: str
    stop_early: float
    flops_share: float
    time_share: float
    excess: float
    seconds: dict[str, float]
    rounds: int


@dataclasses.dataclass(frozen=True)
class Case:
    """Network with weights and images.

    Attributes:
        settings: Settings of the measurement.
        model: Network of adaptive depth, in its skipping form.
        plain: The same network without halting.
        variables: Variables of the model.
        folded: The same variables, folded for skipping.
        images: float[N, H, W, 3].
        output: Output of the model.
        inputs: Input of each block.
    """

    settings: Settings
    model: Any
    plain: Any
    variables: dict[str, Any]
    folded: dict[str, Any]
    images: jax.Array
    output: ModelOutput
    inputs: list[jax.Array]


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
    depth, _, rest = name.removeprefix("resnet").partition("_")
    rule, _, data = rest.partition("_")
    plain = "_".join(part for part in ("resnetv2", depth, data) if part)
    if rule not in ("act", "sact", "pact") or plain not in list_models():
        known = [n for rule in ("act", "sact", "pact") for n in list_models(f"*_{rule}*")]
        raise UserError(f"{name!r} is not a network of adaptive depth; expected one of {known}")
    return plain


def make_case(settings: Settings) -> Case:
    """Makes a case: weights, batch statistics and halting biases."""
    rng = np.random.default_rng(settings.seed)
    shape = (settings.batch, settings.height, settings.width, 3)
    images = jnp.asarray(photograph_like(rng, shape))
    plain: Any = create_model(plain_name(settings.name))
    model: Any = create_model(settings.name, execution="skipping")
    fold = jax.jit(model.fold)
    variables = jax.jit(lambda x: model.init(jax.random.key(settings.seed), x))(images[:, :64, :64])
    variables = _with_bias(variables, lambda name, bias: bias - 30.0)
    # Several images: heads normalise by the variance of image means, which is 0 for one image.
    sides = (min(settings.height, 224), min(settings.width, 224))
    several = jnp.asarray(photograph_like(rng, (8, *sides, 3)))
    variables = _with_statistics(model, variables, several)
    forward = jax.jit(functools.partial(full_output, model))
    rule = model.halting.rule
    for stage, size in enumerate(model.stage_sizes):
        if size == 1:
            continue
        logits = np.asarray(forward(fold(variables), images).blocks[stage].halting_logits)
        # Random heads differ in their means; with equal means, positions halt after every unit.
        start = {
            head_name(model.unit_name(stage, i), rule): -float(np.mean(logits[..., i]))
            for i in range(size - 1)
        }
        before = variables

        def moved(by: float, start=start, before=before) -> dict[str, Any]:
            return _with_bias(
                before, lambda name, bias: bias + start[name] + by if name in start else bias
            )

        # Bisection: the share has no closed form, since halting changes the inputs of later units.
        low, high = -20.0, 10.0
        for _ in range(16):
            middle = (low + high) / 2
            variables = moved(middle)
            units = np.asarray(forward(fold(variables), images).blocks[stage].num_units)
            early = np.mean(units < size)
            if abs(early - settings.stop_early) < 0.02:
                break
            low, high = (middle, high) if early < settings.stop_early else (low, middle)
    folded = fold(variables)
    output = forward(folded, images)

    @jax.jit
    def stage_inputs(folded, x):
        found: list[jax.Array] = []

        def run(stage, units, x):
            found.append(x)
            return _skip_stage(model, folded, stage, units, x)

        _with_stage_runner(model, folded, x, run)
        return found

    inputs = stage_inputs(folded, images)
    return Case(settings, model, plain, variables, folded, images, output, inputs)


def _skip_stage(model: Any, folded: Any, stage: int, units: Any, x: jax.Array) -> jax.Array:
    """Runs a stage in the skipping form."""
    block = model.skipping_block(model.halting.mode(None, train=False))
    return block.run(units[0](x), folded[FOLDED].get(f"block_{stage}"), None)[0]


def _with_stage_runner(
    network: Any, variables: Any, x: jax.Array, run: Callable[[int, Any, jax.Array], jax.Array]
) -> jax.Array:
    """Runs a network with `run(number, units, x)` for each stage."""

    def forward(module, x):
        numbers = itertools.count()
        return module.logits(x, False, lambda units, x, _: run(next(numbers), units, x))

    return network.apply(variables, x, method=forward)


def _one_stage(
    network: Any, variables: Any, stage: int, x: jax.Array, run: Callable[[Any, jax.Array], Any]
) -> Any:
    """Returns `run(units, x)` of one stage; compilation removes the rest of the network."""
    found = []

    def run_stage(number, units, ignored):
        if number == stage:
            found.append(run(units, x))
        channels = units[0].features if hasattr(units[0], "features") else 4 * units[0].width
        return jnp.zeros((1, 1, 1, channels), ignored.dtype)

    _with_stage_runner(network, variables, jnp.zeros((1, 32, 32, 3), x.dtype), run_stage)
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


def _plain_variables(case: Case) -> dict[str, Any]:
    """Returns the plain network's part of the variables."""
    return {
        kind: {name: value for name, value in tree.items() if not is_head(name)}
        for kind, tree in case.variables.items()
    }


def compare_network(case: Case) -> Comparison:
    """Times the whole network."""
    settings, variables = case.settings, _plain_variables(case)
    plain = jax.jit(lambda variables, x: case.plain.apply(variables, x))
    skipping = jax.jit(lambda folded, x: case.model.apply(folded, x))
    size = (settings.height, settings.width)
    macs = count_macs(plain_name(settings.name), input_shape=(*size, 3))
    flops = flops_per_image(case.model, case.output, image_size=size)
    return _compare(
        "network",
        case,
        {PLAIN: lambda: plain(variables, case.images),
         SKIPPING: lambda: skipping(case.folded, case.images)},
        float(np.mean(flops)) / (2 * macs),
        case.output.blocks,
    )  # fmt: skip


def compare_block(case: Case, stage: int) -> Comparison:
    """Times one block on its input in the network."""
    settings, variables = case.settings, _plain_variables(case)
    x = case.inputs[stage]

    @jax.jit
    def plain(variables, x):
        return _one_stage(
            case.plain, variables, stage, x, lambda units, x: run_sequentially(units, x, False)
        )

    @jax.jit
    def skipping(folded, x):
        def run(units, x):
            return _skip_stage(case.model, folded, stage, units, x)

        return _one_stage(case.model, folded, stage, x, run)

    ledger = layer_macs(plain_name(settings.name), input_shape=(settings.height, settings.width, 3))
    prefix = case.model.unit_name(stage, 0)[:-1]
    macs = sum(value for where, value in ledger.items() if f"/{prefix}" in where)
    flops = block_flops(case.model, case.output)[:, stage]
    return _compare(
        f"block {stage + 1}",
        case,
        {PLAIN: lambda: plain(variables, x), SKIPPING: lambda: skipping(case.folded, x)},
        float(np.mean(flops)) / (2 * macs),
        case.output.blocks[stage : stage + 1],
    )


def _compare(
    part: str, case: Case, programs: dict[str, Callable[[], Any]], flops_share: float, blocks: Any
) -> Comparison:
    def waiting(program: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            jax.block_until_ready(program())

        return run

    contenders = {name: waiting(program) for name, program in programs.items()}
    times = time_interleaved(contenders, seconds=case.settings.seconds)
    shares = [ours / theirs for ours, theirs in zip(times[SKIPPING], times[PLAIN], strict=True)]
    early = [np.mean(np.asarray(b.num_units) < b.weights.shape[-1]) for b in blocks]
    time_share = statistics.median(shares)
    return Comparison(
        part=part,
        stop_early=round(float(np.mean(early)), 4),
        flops_share=round(flops_share, 4),
        time_share=round(time_share, 4),
        excess=round(time_share / flops_share, 4),
        seconds={name: round(value, 5) for name, value in medians(times).items()},
        rounds=len(shares),
    )
