"""Networks of adaptive depth that skip what has halted: less time, the same outputs.

The dense form (`model.apply`) computes everything and masks; this one computes a unit at the
positions that are still active, ends a stage when there are none, and so leaves out whole images
that have finished. Both run the same parameters and agree to rounding.

    prepared = prepare(model, variables)
    output = jax.jit(lambda prepared, images: skip(model, prepared, images))(prepared, images)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adaptive_nets.models.adaptive.stage import SkippingStage
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.models import resnet_v2_cifar
from adaptive_nets.models.adaptive.blocks import Mode
from adaptive_nets.models.adaptive.folded_weights import Prepared, prepare
from adaptive_nets.models.adaptive.resnet import STREAM, AdaptiveCifarResNet, AdaptiveNet
from adaptive_nets.models.output import BlockTrace, ModelOutput
from adaptive_nets.runtime.errors import UserError
from kernels.masked_unit import ExecutionPath

__all__ = ["Prepared", "prepare", "skip", "skipping_stage"]


def skip(
    model: AdaptiveNet,
    prepared: Prepared,
    x: Float[Array, "N H W C"],
    *,
    mode: Mode | None = None,
    rngs: Mapping[str, PRNGKeyArray] | None = None,
    way: ExecutionPath | None = None,
) -> ModelOutput:
    """Runs a network on a batch of images and skips what has halted; to be compiled by the caller.

    Args:
        model: the network.
        prepared: its parameters, from `prepare`.
        x: float[N, H, W, C].
        mode: of a probabilistic network, "thresholded" if not given, or "discrete". A relaxed one
            runs everything: there is nothing to skip.
        rngs: {"halting": key} for discrete blocks, which draw what `model.apply` draws.
        way: for measurements: "dense" computes units everywhere and masks, "sparse" never does.

    Returns:
        As of the model. What a head would have said where its unit did not run is not known:
        halting probabilities past `num_units` are 0, and a probabilistic block's `ponder_cost` is
        the number of units that ran, not its expectation.

    Raises:
        UserError: the mode is none of these.
    """
    stage = skipping_stage(model, mode=mode, way=way)
    if stage.mode == "discrete" and STREAM not in (rngs or {}):
        raise UserError("mode is 'discrete' and there is no rngs; expected {'halting': key}")

    def forward(module: Any, x: Array) -> ModelOutput:
        traces: list[BlockTrace] = []

        def run_stage(units, x: Array, train: bool) -> Array:
            keys = (
                [module.make_rng(STREAM) for _ in units[1:]] if stage.mode == "discrete" else None
            )
            x = units[0](x, train)
            x, trace = stage.run(x, prepared.stages[len(traces)], keys)
            traces.append(trace)
            return x

        logits = module.logits(x, False, run_stage)
        return ModelOutput(logits, blocks=tuple(traces))

    return model.apply(prepared.variables, x, method=forward, rngs=rngs)  # pyright: ignore


def skipping_stage(
    model: AdaptiveNet, *, mode: Mode | None = None, way: ExecutionPath | None = None
) -> SkippingStage:
    """How each stage of a network runs; arguments and errors as of `skip`."""
    mode = model.halting.mode(mode, train=False)
    if mode == "relaxed":
        raise UserError("mode is 'relaxed', which runs every unit; expected one that skips")
    slope = resnet_v2_cifar.SLOPE if isinstance(model, AdaptiveCifarResNet) else 0.0
    return SkippingStage(model.halting, mode, slope, way)
