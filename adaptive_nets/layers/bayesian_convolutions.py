"""Convolutions whose kernels have a factorised Gaussian posterior, in any network.

The posterior of a weight is N(m, s²). Training samples the outputs by the local reparameterisation;
evaluation uses the means. Biases and dense layers stay point estimates [atanov2019].
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from adaptive_nets.layers.interception import (
    BIAS,
    KERNEL,
    apply_with,
    kernel_paths,
    replace_leaves,
)
from adaptive_nets.layers.sparse_vd import NOISE
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import named_key
from adaptive_nets.variational.deep_weight_prior import INITIAL_RATE_LOGIT, truncated_log_alpha
from adaptive_nets.variational.local_reparameterisation import sample_linear
from adaptive_nets.variational.log_uniform import multiplicative_variance
from kernels.dense_conv import conv_general_dilated

MEAN, SPREAD = "mean", "spread"
Spread = Literal["log_variance", "rate_logit"]
"""Trained beside m: log s², or the logit of a dropout rate α <= 1 with s² = α·m²."""

_START: Mapping[Spread, float] = {"log_variance": -10.0, "rate_logit": INITIAL_RATE_LOGIT}


class BayesianConvolutions:
    """Network with Gaussian kernels of convolutions, with the `init` and `apply` of a module.

    Its parameters are {"mean": those of the plain network, "spread": the tree of the chosen
    kernels, with log s² or the logit of α}. Training needs the random stream ``noise``.

    Args:
        module: plain linen network.
        spread: what is trained beside the means.
        start: initial log s² or logit; None for −10 or −2, the values of [atanov2019].
        layers: pattern of the paths of layers with Gaussian kernels, such as "conv[12]".

    Example:
        >>> import jax
        >>> from adaptive_nets import create_model
        >>> network = BayesianConvolutions(create_model("fconv_mnist", widths=(2, 4)))
        >>> variables = network.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
        >>> sorted(network.moments(variables["params"]))
        ['conv1', 'conv2']
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        spread: Spread = "log_variance",
        start: float | None = None,
        layers: str = "*",
    ):
        if spread not in _START:
            raise UserError(f"spread is {spread!r}; expected {' or '.join(map(repr, _START))}")
        self.module, self.layers = module, layers
        self.spread: Spread = spread
        self.start = _START[spread] if start is None else start

    def init(self, rngs: Any, x: Array, **options: Any) -> dict[str, Any]:
        """Initialises means, spreads and the other collections.

        Raises:
            UserError: no convolution of the network matches the pattern.
        """
        variables = dict(self.module.init(rngs, x, **options))
        means = variables.pop("params")
        spreads = self._filled(means)
        if not spreads:
            found = [path for path, k in kernel_paths(means).items() if jnp.ndim(k) == 4]
            raise UserError(
                f"layers is {self.layers!r}; expected a pattern of {', '.join(found) or 'nothing'}"
            )
        return {"params": {MEAN: means, SPREAD: spreads}, **variables}

    def _filled(self, tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
        """Returns the tree of the chosen kernels with initial spreads."""
        chosen = fnmatch.fnmatchcase(prefix.rstrip("/"), self.layers)
        filled = {}
        for name, child in tree.items():
            if isinstance(child, Mapping):
                if inner := self._filled(child, f"{prefix}{name}/"):
                    filled[name] = inner
            elif name == KERNEL and jnp.ndim(child) == 4 and chosen:
                filled[name] = jnp.full_like(child, self.start)
        return filled

    def moments(self, params: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
        """Computes m and s² of every Gaussian kernel, float32[h, w, C, O], by the layer's path."""
        means = kernel_paths(params[MEAN])
        return {
            path: (means[path], self._variance(means[path], spread))
            for path, spread in kernel_paths(params[SPREAD]).items()
        }

    def _variance(self, mean: Array, spread: Array) -> Array:
        if self.spread == "log_variance":
            return jnp.exp(spread)
        return multiplicative_variance(mean, truncated_log_alpha(spread))

    def sample(self, key: PRNGKeyArray, params: Mapping[str, Any]) -> Any:
        """Samples parameters of the plain network."""
        drawn = {
            f"{path}/{KERNEL}": mean
            + jnp.sqrt(variance) * jax.random.normal(named_key(key, path), mean.shape, mean.dtype)
            for path, (mean, variance) in self.moments(params).items()
        }
        return replace_leaves(params[MEAN], drawn)

    def apply(
        self, variables: Any, x: Array, *, train: bool = False, rngs: Any = None, **options: Any
    ) -> Any:
        """Applies the network, with sampled outputs of its convolutions in training."""
        params = variables["params"]
        plain = {**variables, "params": params[MEAN]}
        if not train:
            return self.module.apply(plain, x, train=False, **options)
        moments = self.moments(params)

        def call(layer: nn.Module, path: str, original: Callable[..., Any], inputs: Array) -> Any:
            if path not in moments:
                return original(inputs)
            assert isinstance(layer, nn.Conv)
            mean, variance = moments[path]
            key = named_key(rngs[NOISE], path)
            outputs = sample_linear(key, inputs, mean, variance, linear_map(layer))
            if not layer.use_bias:
                return outputs
            return outputs + layer.get_variable("params", BIAS)[None, None, None]

        return apply_with(self.module, call, plain, x, train=True, rngs=rngs, **options)


def linear_map(layer: nn.Conv) -> Callable[[Array, Array], Array]:
    """Returns the convolution of a layer as a function of inputs and kernel."""
    strides = _pair(layer.strides)
    dilation = _pair(layer.kernel_dilation)
    padding: Any = layer.padding
    if isinstance(padding, int):
        padding = [(padding, padding)] * 2
    elif not isinstance(padding, str):
        padding = [(p, p) if isinstance(p, int) else tuple(p) for p in padding]

    def convolve(inputs: Float[Array, "N H W C"], kernel: Float[Array, "h w C O"]) -> Array:
        return conv_general_dilated(
            inputs, kernel.astype(inputs.dtype), strides, padding, rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=layer.feature_group_count,
        )  # fmt: skip

    return convolve


def _pair(value: Any) -> tuple[int, int]:
    """Returns a value of linen's convolutions, None or one number or two, as two numbers."""
    if value is None:
        return 1, 1
    return (value, value) if isinstance(value, int) else tuple(value)
