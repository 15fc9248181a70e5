"""Experiments of the paper and their presets."""

from experiments.papers.sparse_vd.configs import (
    linear,
    parameterisation,
    random_labels,
    table1,
    vgg,
)
from experiments.papers.sparse_vd.configs.fields import SparseVDConfig, VariationalConfig

__all__ = ["EXPERIMENTS", "SparseVDConfig", "VariationalConfig"]

EXPERIMENTS = (
    *table1.EXPERIMENTS,
    *vgg.EXPERIMENTS,
    *random_labels.EXPERIMENTS,
    *parameterisation.EXPERIMENTS,
    *linear.EXPERIMENTS,
)
