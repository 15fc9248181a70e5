"""Predictions of policies on images, view by view, kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.ensembling import Policy, average_views, policy_views
from adaptive_nets.ensembling.views import Predictor
from adaptive_nets.runtime.progress import ProgressReporter

Curve = dict[int, np.ndarray]
"""Number of views -> float64[N, K], log of the mean probability; NaN for images left out."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Images and a network on which policies are evaluated.

    Attributes:
        predict: network.
        images: uint8[N, H, W, C].
        batch_size: images at a time.
        seed: seed of random parts, other than those of the search.
        directory: folder of the stores.
        identity: what the predictions depend on.
        progress: shows the rate and the remaining time.
        title: title of the progress.
    """

    predict: Predictor
    images: np.ndarray
    batch_size: int
    seed: int
    directory: Path
    identity: Mapping[str, Any]
    progress: ProgressReporter
    title: str

    def curves(
        self,
        name: str,
        policies: Sequence[Policy],
        counts: Sequence[int],
        masks: Sequence[np.ndarray] | None = None,
    ) -> list[Curve]:
        """Averages predictions over the first views of each policy.

        Args:
            name: name of the kind of policy in the progress.
            policies: one for every division of the images, or one for all.
            counts: numbers of views.
            masks: bool[N] of each policy, the images to predict; all if None.

        Returns:
            A curve for every policy.
        """
        found = []
        for number, policy in enumerate(policies):
            mask = np.ones(len(self.images), bool) if masks is None else masks[number]
            policy = policy.first(max(counts))
            marks = {
                **self.identity,
                "policy": _digest(repr(policy.sub_policies)),
                "chosen": _digest(mask.tobytes()),
                "counts": list(counts),
            }
            averages = average_views(
                [self.predict], self.images[mask], policy_views(policy), counts=counts,
                seed=self.seed, batch_size=self.batch_size,
                store=self.directory / "views" / f"{_digest(repr(marks))}.npz", identity=marks,
                progress=self.progress, title=f"{self.title}: {name}",
            )  # fmt: skip
            curve = {}
            for count, log_probs in averages.items():
                curve[count] = np.full((len(mask), log_probs.shape[1]), np.nan)
                curve[count][mask] = log_probs
            found.append(curve)
        return found


def _digest(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:16]
