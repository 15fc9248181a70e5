"""Sparse variational dropout as functions on arrays: KL divergence, sampling, sparsity, pruning."""

from adaptive_nets.variational.local_reparameterisation import sample_linear
from adaptive_nets.variational.log_uniform import (
    kl_log_uniform,
    log_alpha,
    multiplicative_variance,
    noise_variance,
)
from adaptive_nets.variational.pruning import prune
from adaptive_nets.variational.sparsity import (
    THRESHOLD,
    LayerSparsity,
    compression,
    keep_mask,
    kl_divergence,
    layer_sparsity,
    linear_warmup,
)

__all__ = [
    "THRESHOLD",
    "LayerSparsity",
    "compression",
    "keep_mask",
    "kl_divergence",
    "kl_log_uniform",
    "layer_sparsity",
    "linear_warmup",
    "log_alpha",
    "multiplicative_variance",
    "noise_variance",
    "prune",
    "sample_linear",
]
