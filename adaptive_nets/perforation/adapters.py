"""One calling convention for networks of users: Flax linen modules, NNX modules, wrappers."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
from flax import nnx

from adaptive_nets.layers.training_mode import INFERENCE, TRAINING, mode_options
from adaptive_nets.runtime.errors import UserError

# Arguments of linen's `apply` itself.
_OF_APPLY = ("method", "capture_intermediates")


def adapt_network(model: Any, **options: Any) -> Any:
    """Wraps a network so that all functions of this package can call it.

    Every function that takes a network adapts it without options, so this is needed only for a
    network whose call has further arguments without defaults.

    * Linen module: `train` is passed under the name that ``__call__`` has for it: train, training,
      is_training, or negated deterministic, use_running_average; it is not passed if ``__call__``
      has none of these.
    * NNX module: variables are ``nnx.state(model)``, or None for the present ones. The mode is that
      of ``model.train()`` and ``model.eval()`` unless ``__call__`` has an argument for it.
    * Any other object with `apply`, such as `SmallerInput`, is returned as it is.

    Args:
        model: the network.
        **options: arguments of every call.

    Returns:
        Object with ``apply(variables, x, train=False, *, rngs=None, mutable=False, **options)``.

    Raises:
        UserError: it is no network.

    Example:
        >>> network = adapt_network(nn.BatchNorm(), use_running_average=True)
        >>> network.options
        {'use_running_average': True}
    """
    if isinstance(model, _Adapted):
        return dataclasses.replace(model, options={**model.options, **options})
    if isinstance(model, nn.Module):
        return LinenNetwork(model, options)
    if isinstance(model, nnx.Module):
        return NNXNetwork(model, options)
    if not callable(getattr(model, "apply", None)):
        raise UserError(
            f"model is {type(model).__name__}; expected a flax.linen module, a flax.nnx module or "
            "an object with init and apply"
        )
    if options:
        raise UserError(
            f"options are {sorted(options)} for {type(model).__name__}; expected none, as it is no "
            "Flax module; pass them to its apply"
        )
    return model


@dataclasses.dataclass(frozen=True)
class _Adapted:
    """Network with the arguments of its calls.

    Attributes:
        model: Flax module.
        options: arguments of every call.
    """

    model: Any
    options: Mapping[str, Any]

    def variables(self, variables: Any) -> Any:
        """Returns variables as nested dictionaries: collection -> module path -> array or shape."""
        return variables

    def call_options(
        self, function: Callable[..., Any], train: bool, given: Any, *, bound: bool = False
    ) -> dict[str, Any]:
        """Completes the keyword arguments of a call of a method.

        Args:
            function: the method.
            train: whether the call is one of training.
            given: keyword arguments of the call.
            bound: whether the signature of `function` lacks `self`.

        Raises:
            UserError: an argument is unknown or missing, or there is none for training.
        """
        name = f"{type(self.model).__name__}.{getattr(function, '__name__', 'method')}"
        parameters = list(inspect.signature(function).parameters.values())
        for _ in range(1 if bound else 2):  # the module, and the image
            if parameters and parameters[0].kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD:
                parameters = parameters[1:]
        kinds = {p.name: p.kind for p in parameters}
        options = {**self.options, **given}
        modes = mode_options(kinds, train)
        options = {**modes, **options}
        if train and not modes:
            raise UserError(
                f"train is True, but {name} has no argument for it; expected one of "
                f"{', '.join(TRAINING + INFERENCE)}, or no train"
            )
        if inspect.Parameter.VAR_KEYWORD not in kinds.values():
            for option in options:
                if option not in kinds:
                    known = ", ".join(kinds) or "the image alone"
                    raise UserError(f"{name} has no argument {option!r}; expected {known}")
        for parameter in parameters:
            optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
                inspect.Parameter.VAR_POSITIONAL,
                inspect.Parameter.VAR_KEYWORD,
            )
            if not optional and parameter.name not in options:
                raise UserError(
                    f"{name} needs the argument {parameter.name!r}; pass the network as "
                    f"adapt_network(model, {parameter.name}=…)"
                )
        return options


class LinenNetwork(_Adapted):
    """Linen module called by the common convention; see `adapt_network`."""

    def init(self, rngs: Any, x: Any, train: bool = False, **options: Any) -> Any:
        """Initialises the variables of the module."""
        options = self.call_options(type(self.model).__call__, train, options)
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
        """Applies the module; arguments as of its `apply`."""
        method = options.get("method")
        if isinstance(method, str):
            method = getattr(type(self.model), method, None)
            if method is None:
                raise UserError(f"{type(self.model).__name__} has no method {options['method']!r}")
        function = method or type(self.model).__call__
        own = {name: options.pop(name) for name in _OF_APPLY if name in options}
        options = self.call_options(function, train, options, bound=inspect.ismethod(function))
        return self.model.apply(variables, x, rngs=rngs, mutable=mutable, **own, **options)


class NNXNetwork(_Adapted):
    """NNX module called by the common convention; see `adapt_network`."""

    def init(self, rngs: Any, x: Any, **options: Any) -> Any:
        """Returns the state of the module, which is initialised already."""
        del rngs, x, options
        return nnx.state(self.model)

    def variables(self, variables: Any) -> dict[str, Any]:
        """Converts a state of the module, or None for its present one, to nested dictionaries.

        The module path of a convolution begins below the only key, as below a linen collection.
        """
        if isinstance(variables, Mapping) and set(variables) == {"state"}:
            return dict(variables)
        state = nnx.state(self.model) if variables is None else variables
        return {"state": nnx.to_pure_dict(state) if isinstance(state, nnx.State) else state}

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
        """Applies the module with the given state; returns (output, new state) if mutable.

        Raises:
            UserError: there are `rngs`; an NNX module has its own random streams.
        """
        if rngs is not None:
            raise UserError("rngs is given for an NNX module; expected None, as it has its own")
        options = self.call_options(self.model.__call__, train, options, bound=True)
        graph, state = nnx.split(self.model)
        pure = self.variables(variables)["state"]
        nnx.replace_by_pure_dict(state, pure)
        module = nnx.merge(graph, state)
        output = module(x, **options)
        return (output, nnx.state(module)) if mutable else output


def canonical_variables(network: Any, variables: Any) -> Any:
    """Returns variables as nested dictionaries: collection -> module path -> array or shape."""
    return network.variables(variables) if isinstance(network, _Adapted) else variables
