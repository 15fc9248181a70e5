"""Small networks of adaptive depth with statistics and biases that are not the initial ones."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from adaptive_nets.models.adaptive.blocks import Halting
from adaptive_nets.models.adaptive.resnet import AdaptiveResNetV2
from adaptive_nets.models.adaptive.resnet_cifar import AdaptiveCifarResNet
from adaptive_nets.models.adaptive.resnet_v1 import AdaptivePostActivationResNet
from adaptive_nets.models.adaptive.resnet_v1_cifar import AdaptivePostActivationCifarResNet
from adaptive_nets.models.resnet import UnitSettings
from adaptive_nets.models.resnet_v2_cifar import CifarResNetV2

SIZES, WIDTHS = (3, 2), (4, 6)
IMAGES = jnp.asarray(np.random.default_rng(3).standard_normal((2, 8, 8, 3)), jnp.float32)


def cifar(rule: str, **options) -> AdaptiveCifarResNet:
    """Stages of 3 and 2 units."""
    return AdaptiveCifarResNet(
        SIZES, widths=WIDTHS, num_classes=5, halting=Halting(rule, **options)
    )


def bottleneck(rule: str, **options) -> AdaptiveResNetV2:
    """Stages of 3 and 1 units: the last one has nothing to decide."""
    return AdaptiveResNetV2(
        (3, 1), widths=(2, 3), num_classes=5, momentum=0.9, halting=Halting(rule, **options)
    )


def post_activation(rule: str, shortcut="A", **options) -> AdaptivePostActivationCifarResNet:
    """Stages of 3 and 2 post-activation units."""
    return AdaptivePostActivationCifarResNet(
        SIZES, widths=WIDTHS, num_classes=5, shortcut=shortcut, halting=Halting(rule, **options)
    )


def post_activation_bottleneck(rule: str, **settings) -> AdaptivePostActivationResNet:
    """Stages of 3 and 2 post-activation units for larger images."""
    return AdaptivePostActivationResNet(
        (3, 2), widths=(2, 3), num_classes=5, unit=UnitSettings(**settings), halting=Halting(rule)
    )


def plain() -> CifarResNetV2:
    """The network under `cifar`."""
    return CifarResNetV2(SIZES, widths=WIDTHS, num_classes=5)


@functools.cache
def initial(model):
    """Initial variables."""
    return jax.jit(lambda: model.init(jax.random.key(0), IMAGES))()


def variables(model, *, bias: float):
    """Variables with statistics drawn at random, and this bias of every halting head."""
    rng = np.random.default_rng(1)

    def change(path, leaf):
        name = jax.tree_util.keystr(path)
        if name.endswith("['var']"):
            return jnp.asarray(rng.uniform(0.5, 2, leaf.shape), jnp.float32)
        if "_head" in name and name.endswith("['bias']") and "norm" not in name:
            return jnp.full(leaf.shape, bias)
        if "bn" in name or "norm" in name:
            return leaf + jnp.asarray(0.3 * rng.standard_normal(leaf.shape), jnp.float32)
        return leaf

    return jax.tree_util.tree_map_with_path(change, initial(model))


def without_weights(tree, scope: str):
    """Variables whose parameters under scopes of this name are zero."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if scope in jax.tree_util.keystr(path) else leaf,
        tree,
    )
