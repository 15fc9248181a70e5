"""Deep weight prior: a latent-variable model of kernel slices as the prior of a convolution.

The prior of [atanov2019] is learnt from the kernels of source networks. Its networks are in
`adaptive_nets.layers.kernel_vae`, its files in `adaptive_nets.models.weights.kernel_priors`.
"""

from adaptive_nets.variational.deep_weight_prior.baselines import (
    INITIAL_RATE_LOGIT,
    SliceGaussian,
    fit_gaussian,
    kl_truncated_log_uniform,
    l2_penalty,
    truncated_log_alpha,
)
from adaptive_nets.variational.deep_weight_prior.bound import (
    kl_upper_bound,
    network_kl_upper_bound,
    slice_kl_upper_bound,
)
from adaptive_nets.variational.deep_weight_prior.densities import (
    FLOOR,
    Gaussian,
    floored_variance,
    kl_standard_normal,
    log_normal,
    normal_entropy,
)
from adaptive_nets.variational.deep_weight_prior.elbo import SlicePrior, log_density, negative_elbo
from adaptive_nets.variational.deep_weight_prior.sampling import (
    init_convolutions,
    initial_kernel,
    prior_initializer,
    sample_slices,
    slices_initializer,
)
from adaptive_nets.variational.deep_weight_prior.slices import (
    LEAST_NORMS,
    SourceSlices,
    collect_slices,
    from_slices,
    to_slices,
)
from adaptive_nets.variational.deep_weight_prior.training import (
    PriorHistory,
    TrainedPrior,
    mean_elbo,
    train_prior,
)

__all__ = [
    "FLOOR",
    "INITIAL_RATE_LOGIT",
    "LEAST_NORMS",
    "Gaussian",
    "PriorHistory",
    "SliceGaussian",
    "SlicePrior",
    "SourceSlices",
    "TrainedPrior",
    "collect_slices",
    "fit_gaussian",
    "floored_variance",
    "from_slices",
    "init_convolutions",
    "initial_kernel",
    "kl_standard_normal",
    "kl_truncated_log_uniform",
    "kl_upper_bound",
    "l2_penalty",
    "log_density",
    "log_normal",
    "mean_elbo",
    "negative_elbo",
    "network_kl_upper_bound",
    "normal_entropy",
    "prior_initializer",
    "sample_slices",
    "slice_kl_upper_bound",
    "slices_initializer",
    "to_slices",
    "train_prior",
    "truncated_log_alpha",
]
