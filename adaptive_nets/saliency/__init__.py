"""Saliency maps from ponder maps, and the measures that compare them with human fixations.

    saliency = smoothed_map(ponder, sigma=8.0, centre_weight=0.5)
    auc_judd(resized(saliency, fixations.shape), fixations)

All functions take arrays of NumPy or JAX and compute in float64 on the host.

[figurnov2017]: Spatially Adaptive Computation Time for Residual Networks, CVPR 2017.
[judd2012]: T. Judd, F. Durand, A. Torralba, "A benchmark of computational models of saliency to
predict human fixations", MIT technical report, 2012.
[bylinskii2018]: Z. Bylinskii, T. Judd, A. Oliva, A. Torralba, F. Durand, "What do different
evaluation metrics tell us about saliency models?", IEEE TPAMI 2019, arXiv 1604.03605.
[zhang2008]: L. Zhang, M. Tong, T. Marks, H. Shan, G. Cottrell, "SUN: a Bayesian framework for
saliency using natural statistics", Journal of Vision, 2008.
"""

from adaptive_nets.saliency.auc import JITTER, auc_judd, auc_shuffled
from adaptive_nets.saliency.fixations import fixations_from_density
from adaptive_nets.saliency.maps import (
    CENTRE_WIDTH,
    blurred,
    centre_baseline,
    fixation_density,
    resized,
    smoothed_map,
    unit_scaled,
)
from adaptive_nets.saliency.parameters import (
    Choice,
    choose_parameters,
    first_halves,
    random_halves,
    score_grid,
)
from adaptive_nets.saliency.similarity import EPSILON, cc, kl, nss, sim

__all__ = [
    "CENTRE_WIDTH",
    "EPSILON",
    "JITTER",
    "Choice",
    "auc_judd",
    "auc_shuffled",
    "blurred",
    "cc",
    "centre_baseline",
    "choose_parameters",
    "first_halves",
    "fixation_density",
    "fixations_from_density",
    "kl",
    "nss",
    "random_halves",
    "resized",
    "score_grid",
    "sim",
    "smoothed_map",
    "unit_scaled",
]
