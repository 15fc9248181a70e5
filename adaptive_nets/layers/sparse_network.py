"""Sparse variational dropout in the convolutions and dense layers of any network.

`SparseConv` and `SparseDense` are for networks that are written with them. Here the network stays
as it is, so that its trained weights load unchanged and a network of adaptive depth keeps its
blocks: every layer gets a ``log_sigma2`` beside its ``kernel``, as those layers have it, and the
measures of `adaptive_nets.variational` apply to the parameters [molchanov2017].
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array

from adaptive_nets.layers.bayesian_convolutions import linear_map
from adaptive_nets.layers.interception import BIAS, KERNEL, apply_with, kernel_paths
from adaptive_nets.layers.sparse_vd import NOISE
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import named_key
from adaptive_nets.variational.local_reparameterisation import sample_linear
from adaptive_nets.variational.log_uniform import log_alpha, noise_variance
from adaptive_nets.variational.pruning import plain_params, prune
from adaptive_nets.variational.sparsity import THRESHOLD

LOG_SIGMA2 = "log_sigma2"
START = -10.0
"""Initial log σ², that of the authors' code; −15 where they start from trained weights."""


class SparseNetwork:
    """Network with sparse variational dropout, with the `init` and `apply` of a module.

    Its parameters are those of the network, with ``log_sigma2`` beside each chosen kernel.
    Training samples the outputs of these layers from the random stream ``noise``. Weights with
    log α at or above the threshold are removed, with their noise, in training and in evaluation.

    Args:
        model: linen network.
        log_sigma2_init: initial log σ².
        threshold: least log α of removed weights.
        layers: pattern of the paths of sparse layers, such as "conv[12]".
        kept: pattern of the paths of layers that stay as they are, such as "*_head/*".

    Example:
        >>> import jax
        >>> from adaptive_nets import create_model
        >>> network = SparseNetwork(create_model("lenet_300_100"))
        >>> variables = network.init(jax.random.key(0), jax.numpy.zeros((1, 28, 28, 1)))
        >>> sorted(variables["params"]["fc1"])
        ['bias', 'kernel', 'log_sigma2']
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        log_sigma2_init: float = START,
        threshold: float = THRESHOLD,
        layers: str = "*",
        kept: str = "",
    ):
        self.model, self.layers, self.kept = model, layers, kept
        self.log_sigma2_init, self.threshold = log_sigma2_init, threshold

    def init(self, rngs: Any, x: Array, **options: Any) -> dict[str, Any]:
        """Initialises the variables of the network and every log σ².

        Raises:
            UserError: no layer of the network is chosen.
        """
        variables = dict(self.model.init(rngs, x, **options))
        return {**variables, "params": self.with_noise(variables["params"])}

    def with_noise(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Adds the initial log σ² to parameters of the plain network, such as trained ones.

        Raises:
            UserError: no layer of the network is chosen.
        """
        chosen = {path for path in kernel_paths(params) if self._is_sparse(path)}
        if not chosen:
            found = ", ".join(kernel_paths(params)) or "nothing"
            raise UserError(f"layers is {self.layers!r}; expected a pattern of {found}")
        return self._extended(params, chosen)

    def _is_sparse(self, path: str) -> bool:
        chosen = fnmatch.fnmatchcase(path, self.layers)
        return chosen and not fnmatch.fnmatchcase(path, self.kept)

    def _extended(
        self, tree: Mapping[str, Any], chosen: set[str], prefix: str = ""
    ) -> dict[str, Any]:
        extended = {
            name: self._extended(child, chosen, f"{prefix}{name}/")
            if isinstance(child, Mapping)
            else child
            for name, child in tree.items()
        }
        if prefix.rstrip("/") in chosen:
            kernel = jnp.asarray(tree[KERNEL], jnp.float32)
            extended[LOG_SIGMA2] = jnp.full_like(kernel, self.log_sigma2_init)
        return extended

    def pruned(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Returns variables of the plain network, with removed weights at zero."""
        return {**variables, "params": prune(variables["params"], threshold=self.threshold)}

    def apply(
        self, variables: Any, x: Array, train: bool = False, *, rngs: Any = None, **options: Any
    ) -> Any:
        """Applies the network: sampled outputs of sparse layers in training, else pruned weights.

        Args:
            variables: from `init`.
            x: inputs of the network, float[N, ...].
            train: whether the call is a training step.
            rngs: random streams; training needs ``noise``.
            **options: further arguments of the network's `apply`.

        Returns:
            What the network returns.
        """
        if not train:
            return self.model.apply(self.pruned(variables), x, train=False, rngs=rngs, **options)
        spreads = _leaves(variables["params"], LOG_SIGMA2)
        plain = {**variables, "params": plain_params(variables["params"])}

        def call(layer: nn.Module, path: str, original: Callable[..., Any], inputs: Array) -> Any:
            if path not in spreads:
                return original(inputs)
            assert isinstance(layer, nn.Conv | nn.Dense)
            theta: Any = layer.get_variable("params", KERNEL)
            kept = log_alpha(theta, spreads[path]) < self.threshold
            sigma2 = jnp.where(kept, noise_variance(theta, spreads[path]), 0.0)
            theta = jnp.where(kept, theta, 0.0)
            linear = linear_map(layer) if isinstance(layer, nn.Conv) else jnp.dot
            key = named_key(rngs[NOISE], path)
            outputs = sample_linear(key, inputs, theta.astype(inputs.dtype), sigma2, linear)
            if not layer.use_bias:
                return outputs
            bias: Any = layer.get_variable("params", BIAS)
            return outputs + jnp.reshape(bias, (1,) * (outputs.ndim - 1) + (-1,))

        return apply_with(self.model, call, plain, x, train=True, rngs=rngs, **options)


def _leaves(params: Mapping[str, Any], leaf: str, prefix: str = "") -> dict[str, jax.Array]:
    """Returns path of the layer -> leaf, of every leaf of a name."""
    found: dict[str, jax.Array] = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            found |= _leaves(child, leaf, f"{prefix}{name}/")
        elif name == leaf:
            found[prefix.rstrip("/")] = child
    return found
