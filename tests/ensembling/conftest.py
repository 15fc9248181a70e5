"""Random predictions, and the check of an error message."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import log_softmax

from adaptive_nets.runtime.errors import UserError


@pytest.fixture
def complains() -> Callable[..., str]:
    """Calls something that must fail with one line that holds every given text."""

    def check(call: Callable[[], object], *texts: object) -> str:
        with pytest.raises(UserError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        for text in texts:
            assert str(text) in message, message
        return message

    return check


@pytest.fixture
def predictions(rng) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Draws log-probabilities and labels that agree with them more often than by chance."""

    def draw(*shape: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, shape[-1], shape[-2])
        logits = spread * rng.normal(size=shape) + 1.5 * np.eye(shape[-1])[labels]
        return log_softmax(logits, axis=-1), labels

    return draw
