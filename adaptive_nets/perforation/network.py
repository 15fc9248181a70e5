"""Perforated networks: selected convolutions are computed at kept positions [figurnov2016]."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, get_args

import jax
import numpy as np

from adaptive_nets.perforation.adapters import adapt_network, canonical_variables
from adaptive_nets.perforation.find_layers import conv_layers
from adaptive_nets.perforation.interpreter import Interpolation, Interpreter, Tap, trace
from adaptive_nets.perforation.plan import PerforationPlan, check_plan
from adaptive_nets.runtime.errors import UserError
from kernels.perforated_conv.plan import Plan
from kernels.perforated_conv.plan import make_plan as make_positions


@dataclasses.dataclass(frozen=True, eq=False)
class PerforatedModel:
    """Perforated network with the `init` and `apply` of the network that it wraps.

    Variables are those of the network. Every call goes through `adapt_network`. Positions that a
    perforated layer does not compute take the value of the nearest kept one; with implicit
    interpolation the copies are not written if the next layer can read through the nearest-kept
    map. Position-wise functions (bias, ReLU, normalisation, 1x1 convolutions) run on kept positions
    only. Dropout directly after a perforated layer draws for every position, as in the unperforated
    network.

    Attributes:
        model: wrapped network.
        plan: masks of the perforated layers.
        interpolation: "implicit", or "explicit" to fill the output of every perforated layer.
        implementation: implementation of `kernels.perforated_conv`; None chooses.
    """

    model: Any
    plan: PerforationPlan
    interpolation: Interpolation = "implicit"
    implementation: Any = None
    _checked: set[Any] = dataclasses.field(default_factory=set, repr=False)

    def init(self, rngs: Any, x: Any, **options: Any) -> Any:
        """Initialises the variables of the wrapped network."""
        return adapt_network(self.model).init(rngs, x, **options)

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
        """Applies the perforated network; arguments as of the wrapped network's `apply`.

        It can be compiled and differentiated. An NNX module takes ``nnx.state(model)`` or None as
        variables, and returns (output, new state) if `mutable` is True.

        Raises:
            UserError: the plan is not for this network at this image size, or `x` is no batch of
                images.
        """
        if np.ndim(x) != 4:
            raise UserError(f"x has shape {np.shape(x)}; expected images [N, H, W, C]")
        options = {"train": train, "mutable": mutable, **options}
        self.check(variables, np.shape(x)[1:])
        if not self.masks:
            network = adapt_network(self.model)
            variables = canonical_variables(network, variables)
            return network.apply(variables, x, rngs=rngs, **options)
        return self.apply_tapped(variables, x, None, rngs=rngs, **options)

    def apply_tapped(self, variables: Any, x: Any, tap: Tap | None, **options: Any) -> Any:
        """Applies the perforated network with a callback on the output of every convolution.

        Args:
            variables: variables of the network.
            x: float[N, H, W, C].
            tap: (name, output) -> replacement output. The output has its bias and precedes ReLU;
                it is an array, or a `CompactTensor` if the convolution is perforated.
            **options: further arguments of `apply`.
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
        """Checks the plan against the network, once per image size.

        Raises:
            UserError: the plan is not for this network.
        """
        if tuple(image_shape) in self._checked:
            return
        height, width, channels = image_shape
        variables = canonical_variables(adapt_network(self.model), variables)
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
        check_plan(self.plan, conv_layers(self.model, shapes, (height, width, channels)))
        self._checked.add(tuple(image_shape))

    @property
    def masks(self) -> Mapping[str, Plan]:
        """Returns the kept positions by layer, without layers that keep every position."""
        return {
            name: make_positions(layer.mask, layer.nearest)
            for name, layer in self.plan.layers.items()
            if not layer.mask.all()
        }


def perforate_by_plan(
    model: Any,
    variables: Any,
    plan: PerforationPlan,
    *,
    image_shape: tuple[int, int, int] | None = None,
    interpolation: Interpolation = "implicit",
    implementation: Any = None,
) -> PerforatedModel:
    """Perforates a network by a plan, as `adaptive_nets.perforation.perforate` without images.

    Args:
        model: any image network, a flax.linen or flax.nnx module; see `adapt_network` for one whose
            call has further arguments.
        variables: its variables or their shapes; for an NNX module ``nnx.state(model)`` or None.
        plan: plan from `make_plan` for this network.
        image_shape: (H, W, C). If given, the plan is checked now, else at the first `apply`.
        interpolation: "implicit", or "explicit" to fill the output of every perforated layer.
        implementation: implementation of `kernels.perforated_conv`; None chooses, a name requires
            that one.

    Raises:
        UserError: the plan is for another network, a mask has the wrong size, a layer cannot be
            perforated or does not exist, or the interpolation is unknown.

    Example:
        >>> from adaptive_nets.models import create_model
        >>> from adaptive_nets.perforation import make_plan
        >>> model, images = create_model("lenet5_caffe"), np.ones((2, 28, 28, 1))
        >>> variables = model.init(jax.random.key(0), images)
        >>> layers = conv_layers(model, variables, (28, 28, 1))
        >>> [layer.name for layer in layers]
        ['conv1', 'conv2']
        >>> plan = make_plan(jax.random.key(0), layers, {"conv1": 0.5})
        >>> perforated = perforate_by_plan(model, variables, plan, image_shape=(28, 28, 1))
        >>> perforated.apply(variables, images).shape
        (2, 10)
    """
    if interpolation not in get_args(Interpolation):
        raise UserError(f"interpolation is {interpolation!r}; expected implicit or explicit")
    perforated = PerforatedModel(model, plan, interpolation, implementation)
    if image_shape is not None:
        perforated.check(variables, image_shape)
    return perforated
