"""Ensembling methods [ashukha2020, sec. 3]: a recipe or trained weights -> iterator of members.

`DeepEnsemble` and `ChainEnsemble` train their members (deep ensembles, snapshots, cyclical SGLD,
FGE); `SwagPosterior`, `MeanFieldPosterior`, `KfacPosterior` and `DropoutPosterior` sample them.
"""

from adaptive_nets.ensembling.posterior.chain import Chain, Training, sgd
from adaptive_nets.ensembling.posterior.cyclical import (
    ConstantRate,
    CosineCycles,
    PiecewiseRate,
    TriangularCycles,
    cycle_ends,
    cycle_middles,
    last_of_cycles,
)
from adaptive_nets.ensembling.posterior.dropout import DropoutNetwork, DropoutPosterior
from adaptive_nets.ensembling.posterior.kfac import KfacPosterior, kronecker_factors
from adaptive_nets.ensembling.posterior.langevin import langevin_noise, last_steps
from adaptive_nets.ensembling.posterior.mean_field import (
    MeanFieldNetwork,
    MeanFieldPosterior,
    init_mean_field,
    mean_field_optimiser,
)
from adaptive_nets.ensembling.posterior.members import Posterior, Variables
from adaptive_nets.ensembling.posterior.swag import SwagMoments, SwagPosterior, sample_swag
from adaptive_nets.ensembling.posterior.trained import ChainEnsemble, DeepEnsemble
from adaptive_nets.ensembling.views import member_predictors
from adaptive_nets.training.batch_statistics import statistics_estimator

__all__ = [
    "Chain",
    "ChainEnsemble",
    "ConstantRate",
    "CosineCycles",
    "DeepEnsemble",
    "DropoutNetwork",
    "DropoutPosterior",
    "KfacPosterior",
    "MeanFieldNetwork",
    "MeanFieldPosterior",
    "PiecewiseRate",
    "Posterior",
    "SwagMoments",
    "SwagPosterior",
    "Training",
    "TriangularCycles",
    "Variables",
    "cycle_ends",
    "cycle_middles",
    "init_mean_field",
    "kronecker_factors",
    "langevin_noise",
    "last_of_cycles",
    "last_steps",
    "mean_field_optimiser",
    "member_predictors",
    "sample_swag",
    "sgd",
    "statistics_estimator",
]
