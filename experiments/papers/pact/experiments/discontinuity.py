"""Computes ACT's ponder cost and PACT's expected number of units over the first score of a block.

ACT reads scores as shares of a sum and PACT reads them as probabilities of stopping. The ponder
cost rho = N + R jumps where N changes (figure 4.2 of the authors' thesis); E[z] is a polynomial.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from adaptive_nets.halting import act, expected_units
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.pact.fields import DiscontinuityConfig
from experiments.suite.experiment import Metric, Outcome


def run(
    config: DiscontinuityConfig,
    *,
    dataset: Any,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Computes both curves; see `experiments.suite.experiment.Runner`."""
    del dataset, directory, seed, progress, title
    began = time.monotonic()
    curve = config.curve
    first = np.linspace(0.0, 1.0, curve.points, dtype=np.float32)
    # The last unit of a block has no score; its entry is taken as 1.
    rest = np.array([*curve.others, 1.0], np.float32)
    rest = np.broadcast_to(rest, (len(first), len(rest)))
    scores = jnp.asarray(np.concatenate([first[:, None], rest], axis=1))
    result = act(scores, eps=curve.eps)
    cost, units = np.asarray(result.ponder_cost), np.asarray(result.num_units)
    expected = np.asarray(expected_units(scores))
    jumps = np.flatnonzero(np.diff(units))
    drops = cost[jumps] - cost[jumps + 1]
    count = len(first)
    metrics = {
        "jumps": Metric(float(len(jumps)), "jumps", count, "of the ponder cost"),
        "largest_jump": Metric(
            float(drops.max(initial=0.0)), "units", count, "between neighbouring points"
        ),
        "largest_step_expected": Metric(
            float(np.abs(np.diff(expected)).max()),
            "units",
            count,
            "of the expected number of units, between neighbouring points",
        ),
    }
    arrays = {"first_score": first, "ponder_cost": cost, "units": units, "expected": expected}
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)
