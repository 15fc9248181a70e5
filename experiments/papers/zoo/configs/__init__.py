"""Experiments of the paper and their presets."""

from __future__ import annotations

from experiments.papers.zoo.configs import (
    characters,
    digits,
    photographs,
    plain_networks,
    residual_networks,
)

EXPERIMENTS = (
    *digits.EXPERIMENTS,
    *plain_networks.EXPERIMENTS,
    *residual_networks.EXPERIMENTS,
    *characters.EXPERIMENTS,
    *photographs.EXPERIMENTS,
)
