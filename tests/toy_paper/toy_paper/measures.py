"""Measures of a pruned matrix."""

from __future__ import annotations

import numpy as np

from experiments.suite.experiment import Metric


def pruning_metrics(kept: np.ndarray) -> dict[str, Metric]:
    """Returns compression and sparsity of a boolean mask of kept weights."""
    count = kept.size
    return {
        "compression": Metric(count / float(kept.sum()), "x", count),
        "sparsity.fc1": Metric(100 * float(1 - kept.mean()), "%", count),
    }
