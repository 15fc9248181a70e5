"""Random predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import log_softmax


@pytest.fixture
def predictions(rng) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Draws log-probabilities and labels that agree with them more often than by chance."""

    def draw(*shape: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, shape[-1], shape[-2])
        logits = spread * rng.normal(size=shape) + 1.5 * np.eye(shape[-1])[labels]
        return log_softmax(logits, axis=-1), labels

    return draw
