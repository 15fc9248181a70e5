"""Whole networks of which some convolutions are computed at some positions only [figurnov2016]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import flax.linen as nn
import jax

from adaptive_nets.perforation.find_layers import conv_layers
from adaptive_nets.perforation.interpreter import Interpolation, Interpreter, Tap, trace
from adaptive_nets.perforation.plan import PerforationPlan, check_plan
from adaptive_nets.runtime.errors import UserError
from kernels.perforated_conv.plan import Plan
from kernels.perforated_conv.plan import make_plan as make_positions


@dataclasses.dataclass(frozen=True, eq=False)
class PerforatedModel:
    """A network and its plan; stands in for the linen module wherever `init` and `apply` do.

    Variables are those of the network itself. What a perforated layer does not compute is copied
    from the nearest position it does, without writing the copies where the next layer can read
    through the map ("implicit"). Functions of each position alone (bias, ReLU, normalisation,
    1x1 convolutions) run on computed positions only. Dropout right behind a perforated layer draws
    for every position, as it does in the network itself.

    Attributes:
        model: the network.
        plan: its masks.
        interpolation: "implicit", or "explicit" to write out every perforated layer's map.
        implementation: of `kernels.perforated_conv`; None chooses.
    """

    model: nn.Module
    plan: PerforationPlan
    interpolation: Interpolation = "implicit"
    implementation: Any = None
    _checked: set[Any] = dataclasses.field(default_factory=set, repr=False)

    def init(self, rngs: Any, x: Any, **options: Any) -> Any:
        """The network's own variables."""
        return self.model.init(rngs, x, **options)

    def apply(
        self,
        variables: Any,
        x: Any,
        train: bool = False,
        *,
        rngs: Any = None,
        mutable: Any = False,
        **options: Any,
    ) -> Any:
        """As the network's `apply`; can be compiled and differentiated.

        Raises:
            UserError: the plan is not for this network at this size of images.
        """
        options = {"train": train, "mutable": mutable, **options}
        self.check(variables, x.shape[1:])
        if not self.masks:
            return self.model.apply(variables, x, rngs=rngs, **options)
        return self.apply_tapped(variables, x, None, rngs=rngs, **options)

    def apply_tapped(self, variables: Any, x: Any, tap: Tap | None, **options: Any) -> Any:
        """As `apply`, with a function that gets every convolution's name and output.

        Args:
            variables: of the network.
            x: float[N, H, W, C].
            tap: (name, output with bias, before ReLU; an array, or a `CompactTensor` where
                perforated) -> what the network goes on with.
            **options: of `apply`.
        """
        traced = trace(self.model, variables, x, **options)
        interpreter = Interpreter(
            traced,
            self.masks,
            interpolation=self.interpolation,
            implementation=self.implementation,
            tap=tap,
        )
        return interpreter.run(traced.arguments)

    def check(self, variables: Any, image_shape: tuple[int, ...]) -> None:
        """Checks the plan against the network, once for each size of images.

        Raises:
            UserError: it does not fit.
        """
        if tuple(image_shape) in self._checked:
            return
        height, width, channels = image_shape
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
        check_plan(self.plan, conv_layers(self.model, shapes, (height, width, channels)))
        self._checked.add(tuple(image_shape))

    @property
    def masks(self) -> Mapping[str, Plan]:
        """Computed positions by layer; a layer that keeps all of them is left as it is."""
        return {
            name: make_positions(layer.mask, layer.nearest)
            for name, layer in self.plan.layers.items()
            if not layer.mask.all()
        }


def perforate(
    model: nn.Module,
    variables: Any,
    plan: PerforationPlan,
    *,
    image_shape: tuple[int, int, int] | None = None,
    interpolation: Interpolation = "implicit",
    implementation: Any = None,
) -> PerforatedModel:
    """A network whose convolutions are computed where the plan says; weights stay untouched.

    Args:
        model: any network of images.
        variables: its variables or their shapes.
        plan: from `make_plan`, for this network.
        image_shape: (H, W, C); the plan is checked at once where given, else when first applied.
        interpolation: "implicit", or "explicit" to write out every perforated layer's map.
        implementation: of `kernels.perforated_conv`: None chooses, a name means that one.

    Raises:
        UserError: a plan for another network, a mask of another size, a layer that cannot be
            perforated or is not there, an interpolation that is not known.

    Example:
        >>> layers = conv_layers(model, variables, (32, 32, 3))
        >>> plan = make_plan(jax.random.key(0), layers, {"conv2": 0.5})
        >>> perforated = perforate(model, variables, plan, image_shape=(32, 32, 3))
        >>> logits = perforated.apply(variables, images)
    """
    if interpolation not in get_args(Interpolation):
        raise UserError(f"interpolation is {interpolation!r}; expected implicit or explicit")
    perforated = PerforatedModel(model, plan, interpolation, implementation)
    if image_shape is not None:
        perforated.check(variables, image_shape)
    return perforated
