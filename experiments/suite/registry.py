"""All experiments by id."""

from __future__ import annotations

import fnmatch

from adaptive_nets.runtime.errors import UserError, did_you_mean
from experiments.papers.pact import configs as pact
from experiments.papers.perforated_cnn import configs as perforated_cnn
from experiments.papers.sact import configs as sact
from experiments.papers.sparse_vd import configs as sparse_vd
from experiments.suite.experiment import Experiment, Preset

# Papers in the order in which they are shown.
PAPERS = {"sparse_vd": sparse_vd, "perforated_cnn": perforated_cnn, "sact": sact, "pact": pact}

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment for paper in PAPERS.values() for experiment in paper.EXPERIMENTS
}


def find_experiment(name: str) -> Experiment:
    """The experiment of this id.

    Raises:
        UserError: there is none; the nearest id is suggested.
    """
    if name not in EXPERIMENTS:
        raise UserError(
            f"experiment {name!r} is unknown; {did_you_mean(name, EXPERIMENTS)} "
            "(adaptive-nets list shows all)"
        )
    return EXPERIMENTS[name]


def select(pattern: str) -> list[Experiment]:
    """Experiments whose id matches a shell pattern or begins with it.

    Raises:
        UserError: none does.
    """
    chosen = [
        experiment
        for name, experiment in EXPERIMENTS.items()
        if fnmatch.fnmatch(name, pattern) or name.startswith(pattern)
    ]
    if not chosen:
        known = [*EXPERIMENTS, *PAPERS]
        raise UserError(f"no experiment matches {pattern!r}; {did_you_mean(pattern, known)}")
    return chosen


def find_preset(experiment: Experiment, name: str) -> Preset:
    """The preset of this name.

    Raises:
        UserError: the experiment has none.
    """
    if name not in experiment.presets:
        raise UserError(f"--preset is {name!r}; expected one of {', '.join(experiment.presets)}")
    return experiment.presets[name]
