"""Experiments of the paper and their presets."""

from __future__ import annotations

from experiments.papers.dwp.configs import convergence, features, few_shot, priors

EXPERIMENTS = (
    *priors.EXPERIMENTS,
    *few_shot.EXPERIMENTS,
    *features.EXPERIMENTS,
    *convergence.EXPERIMENTS,
)
