"""Ensembles whose members are trained: independent networks, and stops of one chain."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import jax
from jaxtyping import PRNGKeyArray

from adaptive_nets.ensembling.posterior.chain import Training
from adaptive_nets.ensembling.posterior.members import Variables
from adaptive_nets.runtime.progress import ProgressReporter


@dataclasses.dataclass(frozen=True)
class DeepEnsemble:
    """Deep ensemble: independently initialised and trained networks [lakshminarayanan2017].

    Attributes:
        training: recipe of every member.
        steps: steps of every member.
        count: number of members.
        folder: folder of the state of the member in training; None keeps none.
        progress: shows the rate and the remaining time.
        title: title of the progress.
    """

    training: Training
    steps: int
    count: int
    folder: Path | None = None
    progress: ProgressReporter | None = None
    title: str = "deep ensemble"

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Trains and yields members; member i is trained with the key ``fold_in(key, i)``."""
        for number in range(first, self.count):
            chain = self.training.chain(
                jax.random.fold_in(key, number),
                store=None if self.folder is None else self.folder / f"member{number}.npz",
                progress=self.progress,
                title=f"{self.title}: member {number + 1} of {self.count}",
                total=self.steps,
            )
            yield chain.advance_to(self.steps)
            chain.discard()


@dataclasses.dataclass(frozen=True)
class ChainEnsemble:
    """States of one training at given steps.

    With `cyclical.CosineCycles` and `cyclical.cycle_ends` it is a snapshot ensemble (SSE,
    [huang2017a]); with noise and `cyclical.last_of_cycles` cyclical SGLD [zhang2020]; from a
    trained network with `cyclical.TriangularCycles` and `cyclical.cycle_middles` fast geometric
    ensembling (FGE, [garipov2018]). Iterates of SWAG are stops after every epoch at a constant
    rate.

    Attributes:
        training: recipe with the schedule of the method.
        stops: increasing steps of the members.
        start: variables to start from; None for initial ones.
        store: file of the state; None keeps none.
        progress: shows the rate and the remaining time.
        title: title of the progress.
    """

    training: Training
    stops: tuple[int, ...]
    start: Variables | None = None
    store: Path | None = None
    progress: ProgressReporter | None = None
    title: str = "snapshots"

    def members(self, key: PRNGKeyArray, first: int = 0) -> Iterator[Variables]:
        """Trains and yields the states at the stops; resumes from the file of the state."""
        if first >= len(self.stops):
            return
        chain = self.training.chain(
            key, start=self.start, store=self.store, progress=self.progress, title=self.title,
            total=self.stops[-1],
        )  # fmt: skip
        for stop in self.stops[first:]:
            yield chain.advance_to(stop)
            # The member is kept by now; a chain that goes on from here does not repeat it.
            chain.save()
        chain.discard()
