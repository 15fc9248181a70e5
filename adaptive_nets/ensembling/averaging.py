"""Averages of predictions in probability space."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from adaptive_nets.ensembling.arguments import as_log_probs
from adaptive_nets.runtime.errors import UserError


def average_predictions(log_probs: Float[Any, "S N K"]) -> Float[np.ndarray, "N K"]:
    """Computes the log of the mean probability, log (1/S) Σ_s p_s [ashukha2020, sec. 2].

    Args:
        log_probs: float[S, N, K], normalised log-probabilities of S members or views, nats.

    Returns:
        float64[N, K], normalised log-probabilities.

    Raises:
        UserError: another shape, or log-probabilities that are not normalised.

    Example:
        >>> import numpy as np
        >>> float(np.exp(average_predictions(np.log([[[0.9, 0.1]], [[0.5, 0.5]]])))[0, 0])
        0.7
    """
    array = as_log_probs(log_probs, ndim=3)
    mean = logsumexp(array, axis=0) - np.log(len(array))
    return mean - logsumexp(mean, axis=-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class RunningAverage:
    """Mean of probabilities over members or views that arrive one by one.

    Its size does not depend on the number of views.

    Attributes:
        total: float64[N, K], sum of probabilities.
        count: number of views S.
    """

    total: Float[np.ndarray, "N K"]
    count: int

    @classmethod
    def empty(cls, objects: int, classes: int) -> Self:
        """Returns the average of no views."""
        return cls(np.zeros((objects, classes)), 0)

    def add(self, log_probs: Float[Any, "N K"]) -> Self:
        """Returns the average with one more view.

        Raises:
            UserError: the view has another shape.
        """
        view = np.asarray(log_probs, np.float64)
        if view.shape != self.total.shape:
            raise UserError(f"log_probs have shape {view.shape}; expected {self.total.shape}")
        return dataclasses.replace(self, total=self.total + np.exp(view), count=self.count + 1)

    def log_mean(self) -> Float[np.ndarray, "N K"]:
        """Returns the log of the mean probability, float64[N, K], normalised, nats.

        Raises:
            UserError: there is no view.
        """
        if not self.count:
            raise UserError("the average has 0 views; expected at least one")
        with np.errstate(divide="ignore"):
            return np.log(self.total / self.total.sum(axis=-1, keepdims=True))
