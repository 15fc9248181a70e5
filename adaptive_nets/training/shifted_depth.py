"""Training of one network of adaptive depth for all budgets, by random shifts of its halting.

A budget is met at run time by a shift δ of all halting logits (`adaptive_nets.halting.budget`). A
network that was trained at δ = 0 only has not seen the weights that its units get at other shifts.
Here every image of a training batch gets a shift of its own, so that one network learns the whole
range, as slimmable networks learn several widths at once [yu2019].

With one τ for all images the best decisions are the same at every shift, and a network learns
logits so large that no shift moves them. A τ that grows with the shift, τ · exp(γ δ), makes it pay
to stop earlier at larger shifts.

Yu, Yang, Xu, Yang, Huang, *Slimmable Neural Networks*, ICLR 2019, arXiv 1812.08928.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.models.adaptive.network import STREAM, AdaptiveNetwork
from adaptive_nets.training.depth import SampledDepth


class ShiftedDepth(nn.Module):
    """Network of adaptive depth with a random shift of the halting logits of each training image.

    Its variables are those of the network. In evaluation nothing is shifted, and shifts can be
    given, as to the network itself.

    Attributes:
        network: network of adaptive depth.
        least: smallest shift δ; with −3 or less nearly all units run.
        most: largest shift δ; with 6 or more only the first unit of a block runs.
        growth: γ, growth of the logarithm of τ with the shift; 0 for one τ.
    """

    network: AdaptiveNetwork
    least: float
    most: float
    growth: float = 0.0

    def setup(self) -> None:
        """Shares the scope of the network."""
        nn.share_scope(self, self.network)

    def __call__(self, x: Float[Array, "N H W C"], train: bool = False, **options: Any) -> Any:
        """Computes logits float[N, K]; see `full_output`."""
        return self.full_output(x, train, **options).logits

    def full_output(self, x: Float[Array, "N H W C"], train: bool = False, **options: Any) -> Any:
        """Runs the network; in training with shifts drawn from the stream ``halting``.

        Args:
            x: float[N, H, W, C], images.
            train: whether the call is a training step.
            **options: options of `AdaptiveNetwork.full_output`.

        Returns:
            `ModelOutput`; its traces have the shifted logits, and in training it has the factors
            exp(γ δ) of τ.
        """
        if not train:
            return self.network.full_output(x, train, **options)
        key = self.make_rng(STREAM)
        shifts = jax.random.uniform(key, x.shape[:1], minval=self.least, maxval=self.most)
        output: Any = self.network.full_output(x, train, **{"halting_shift": shifts, **options})
        return output.replace(penalty_factors=jnp.exp(self.growth * shifts))


def with_random_shifts(
    network: AdaptiveNetwork, shifts: Sequence[float], growth: float = 0.0
) -> Any:
    """Returns the network with random shifts in training, or itself without a range of shifts.

    Args:
        network: network of adaptive depth.
        shifts: least and most shift; empty for none.
        growth: γ, growth of the logarithm of τ with the shift.
    """
    if not shifts:
        return network
    least, most = shifts
    return ShiftedDepth(network, least, most, growth)


def unwrapped(model: Any) -> Any:
    """Returns the network of adaptive depth itself, without a wrapper of its training."""
    return model.network if isinstance(model, ShiftedDepth | SampledDepth) else model
