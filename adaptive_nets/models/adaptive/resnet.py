"""Residual networks whose depth adapts to the image, or to each of its positions.

ACT and SACT [figurnov2017] and their probabilistic counterpart [figurnov2018] over the
pre-activation networks of `resnet_v2_cifar` and `resnet_v2`. Scopes of what they share are those of
the plain network, so that one initialises the other; each unit but a stage's last has a head beside
it, in a scope that ends in the name of its rule: scores that are added up and probabilities of
stopping look alike and do not serve each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import TEMPERATURE
from adaptive_nets.halting.adaptive_computation_time import EPSILON
from adaptive_nets.layers.halting_head import HaltingHead
from adaptive_nets.models import resnet_v2, resnet_v2_cifar
from adaptive_nets.models.adaptive.blocks import (
    Halting,
    Mode,
    Rule,
    run_act_block,
    run_probabilistic_block,
)
from adaptive_nets.models.adaptive.weights import check_halting_rule, head_name
from adaptive_nets.models.output import BlockTrace, ModelOutput
from adaptive_nets.models.registry import register_model
from adaptive_nets.models.resnet import STAGES
from adaptive_nets.models.resnet_cifar import units_per_stage
from adaptive_nets.models.resnet_v2 import ResNetV2
from adaptive_nets.models.resnet_v2_cifar import CifarResNetV2
from adaptive_nets.runtime.errors import UserError

STREAM = "halting"
"""Random stream of relaxed and discrete indicators."""


class _Adaptive(nn.Module):
    """What the networks of both data sets have in common; mixed into the plain network."""

    def output(
        self, x: Array, train: bool, mode: Mode | None, temperature: Any, head_options: dict
    ) -> ModelOutput:
        """Runs the plain network's stages as blocks that halt."""
        halting: Halting = self.halting  # pyright: ignore[reportAttributeAccessIssue]
        mode = halting.mode(mode, train=train)
        if mode in ("relaxed", "discrete") and not self.has_rng(STREAM):
            raise UserError(
                f"mode is {mode!r} and there is no random stream; expected rngs={{'halting': key}}"
            )
        check_halting_rule(self.variables.get("params", {}), halting.rule, source="variables")
        traces: list[BlockTrace] = []

        def run_stage(units: Sequence[nn.Module], x: Array, train: bool) -> Array:
            heads = [
                HaltingHead(
                    spatial=halting.rule != "act",
                    norm=halting.head_norm,
                    name=head_name(str(unit.name), halting.rule),
                    **head_options,
                )
                for unit in units[:-1]
            ]
            run_units = [lambda x, mask, unit=unit: unit(x, train, mask=mask) for unit in units]
            run_heads = [lambda x, head=head: head(x, train) for head in heads]
            if mode is None:
                per_image = halting.rule == "act"
                x, trace = run_act_block(
                    run_units, run_heads, x, per_image=per_image, eps=halting.eps
                )
            else:
                x, trace = run_probabilistic_block(
                    run_units,
                    run_heads,
                    x,
                    mode=mode,
                    groups=halting.groups,
                    temperature=halting.temperature if temperature is None else temperature,
                    next_key=lambda: self.make_rng(STREAM),
                )
            traces.append(trace)
            return x

        logits = self.logits(x, train, run_stage)  # pyright: ignore[reportAttributeAccessIssue]
        return ModelOutput(logits, blocks=tuple(traces))


class AdaptiveCifarResNet(CifarResNetV2, _Adaptive):
    """`CifarResNetV2` whose stages halt.

    Attributes:
        halting: how.
    """

    halting: Halting = Halting("sact")
    unit_name = staticmethod(resnet_v2_cifar.unit_name)

    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
    ) -> ModelOutput:
        """Logits of a batch of images, and what halting did in each stage.

        Args:
            x: float[N, H, W, C].
            train: statistics of the batch; a probabilistic network is relaxed, unless told.
            mode: of a probabilistic network; it runs the same parameters in any.
            temperature: λ of relaxed indicators, also traced; that of `halting` if not given.
        """
        head = {"slope": resnet_v2_cifar.SLOPE, "epsilon": resnet_v2_cifar.EPSILON}
        return self.output(x, train, mode, temperature, head)


class AdaptiveResNetV2(ResNetV2, _Adaptive):
    """`ResNetV2` whose stages halt.

    Attributes:
        halting: how.
    """

    halting: Halting = Halting("sact")
    unit_name = staticmethod(resnet_v2.unit_name)

    def __call__(
        self,
        x: Float[Array, "N H W C"],
        train: bool = False,
        *,
        mode: Mode | None = None,
        temperature: float | Float[Array, ""] | None = None,
    ) -> ModelOutput:
        """As of `AdaptiveCifarResNet`."""
        return self.output(x, train, mode, temperature, {"momentum": self.momentum})


AdaptiveNet = AdaptiveCifarResNet | AdaptiveResNetV2

_TITLES: dict[Rule, str] = {
    "act": "adaptive depth per image (ACT)",
    "sact": "adaptive depth at every position (SACT)",
    "pact": "depth as a latent variable at every position (PACT)",
}
_SOURCES: dict[Rule, str] = {
    "act": "figurnov2017, graves2016",
    "sact": "figurnov2017",
    "pact": "figurnov2018",
}


def _with_rule(rule: Rule, make: Callable[..., nn.Module], title: str) -> Callable[..., nn.Module]:
    """A builder that takes the options of its rule and none of the others'."""
    if rule == "pact":

        def build_probabilistic(
            *,
            num_classes: int,
            dtype: Any = jnp.float32,
            head_norm: bool = True,
            groups: int | None = None,
            temperature: float = TEMPERATURE,
        ) -> nn.Module:
            halting = Halting(rule, head_norm, groups=groups, temperature=temperature)
            return make(num_classes=num_classes, dtype=dtype, halting=halting)

        build: Callable[..., nn.Module] = build_probabilistic
    else:

        def build_adding(
            *,
            num_classes: int,
            dtype: Any = jnp.float32,
            head_norm: bool = True,
            eps: float = EPSILON,
        ) -> nn.Module:
            halting = Halting(rule, head_norm, eps=eps)
            return make(num_classes=num_classes, dtype=dtype, halting=halting)

        build = build_adding
    build.__doc__ = f"{title}, {_TITLES[rule]}."
    return build


def _cifar(depth: int) -> Callable[..., nn.Module]:
    return lambda **options: AdaptiveCifarResNet((units_per_stage(depth),) * 3, **options)


def _imagenet(depth: int) -> Callable[..., nn.Module]:
    return lambda **options: AdaptiveResNetV2(STAGES[depth], **options)


for _rule in get_args(Rule):
    for _depth in resnet_v2_cifar.DEPTHS:
        _title = f"Pre-activation ResNet-{_depth} for 32x32 images"
        for _classes in (10, 100):
            register_model(
                f"resnet{_depth}_{_rule}_cifar{_classes}",
                input_shape=(32, 32, 3),
                num_classes=_classes,
                source=_SOURCES[_rule],
                aliases=(f"resnetv2_{_depth}_{_rule}_cifar{_classes}",),
            )(_with_rule(_rule, _cifar(_depth), _title))
    for _depth in resnet_v2.DEPTHS:
        register_model(
            f"resnet{_depth}_{_rule}",
            input_shape=(224, 224, 3),
            num_classes=1001,
            source=_SOURCES[_rule],
            aliases=(f"resnetv2_{_depth}_{_rule}",),
        )(_with_rule(_rule, _imagenet(_depth), f"Pre-activation ResNet-{_depth}"))
