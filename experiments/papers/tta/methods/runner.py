"""Runs one seed of a method: members in files, their predictions with and without augmentation.

The folder of a seed has ``network.safetensors`` (the network that the method starts from),
``members/0.safetensors`` and so on, and ``predictions/``. Whatever is there is not made again.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling.posterior import DropoutPosterior, Posterior, Variables
from adaptive_nets.ensembling.views import crop_views, unchanged_views
from adaptive_nets.models.weights.stored import (
    StoredNetwork,
    check_fits,
    load_network,
    save_network,
)
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.files import write_json_atomically
from adaptive_nets.runtime.json_files import read_json_object
from adaptive_nets.runtime.progress import ProgressReporter
from experiments.papers.tta.methods import builders
from experiments.papers.tta.methods.bench import Bench, set_up
from experiments.papers.tta.methods.configs import (
    CyclicalLangevinConfig,
    DeepEnsembleConfig,
    LaplaceMethodConfig,
    MethodConfig,
    SingleMethodConfig,
    SnapshotConfig,
    SwagMethodConfig,
    VariationalMethodConfig,
)
from experiments.papers.tta.methods.predictions import (
    AUGMENTED,
    PLAIN,
    predict_members,
    reference_curve,
    score_curve,
)
from experiments.shared.ensembling.scores import CLL, score_arrays
from experiments.shared.export import NETWORK
from experiments.suite import run_inputs
from experiments.suite.experiment import Metric, Outcome

MEMBERS = "members"
SCALES = "laplace.json"


def run(
    config: MethodConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Trains or samples the members of a method and scores their averages.

    See `experiments.suite.experiment.Runner`. The number of steps is that of one network, or of
    one cycle; the metric ``training_steps`` has all of them.
    """
    began = time.monotonic()
    stored = _given_network(config, dataset, seed)
    bench = set_up(
        config, dataset, theirs=None if stored is None else stored.normalisation, seed=seed,
        directory=directory, progress=progress, title=title,
    )  # fmt: skip
    if stored is not None:
        expected = jax.eval_shape(
            lambda key: bench.module.init(key, next(bench.inputs(1)), train=False), bench.key
        )
        check_fits(stored.variables, expected, source=f"--weights {config.weights}")
    work = _Work(bench, None if stored is None else stored.variables)
    files, arrays, metrics = work.members()
    trained = time.monotonic() - began
    if not (directory / NETWORK).exists():
        # Commands that load a run expect one network in the folder of the seed.
        shutil.copyfile(files[0], directory / NETWORK)
    predictions = {
        name: predict_members(bench, files, name, views)
        for name, views in ((PLAIN, unchanged_views), (AUGMENTED, crop_views(config.views.padding)))
    }
    for name, found in predictions.items():
        scores = score_curve(found, bench)
        prefix = "" if name == PLAIN else f"{name}/"
        arrays |= score_arrays(scores, prefix)
        last = max(scores)
        note = f"{last} samples{'' if name == PLAIN else ', each with a view of its own'}"
        metrics |= {
            prefix.replace("/", "_") + key: metric
            for key, metric in scores[last].metrics(note=note).items()
        }
        progress.show(
            f"{title}: {scores[last].values['error']:.2f} % error, calibrated log-likelihood "
            f"{scores[last].values[CLL]:.4f} with {note}"
        )
        if isinstance(config, DeepEnsembleConfig):
            arrays |= reference_curve(found, bench, config.ensemble.groupings, prefix)
    metrics["members"] = Metric(float(len(files)), "networks")
    metrics["training_steps"] = Metric(float(work.steps), "steps", 1, "of all stages of this run")
    metrics["training_time"] = Metric(trained, "s", 1, "of this call, before predictions")
    shutil.rmtree(directory / "training", ignore_errors=True)
    steps = bench.timing.total_steps if work.trains_networks else 0
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=steps)


def _given_network(config: MethodConfig, dataset: Dataset, seed: int) -> StoredNetwork | None:
    """Loads the network of ``--weights``; None if a new one is trained."""
    if not config.weights:
        return None
    found = run_inputs.resolve(
        config.weights, run_inputs.RunInputField("optional"), flag="weights", seed=seed
    )
    stored = run_inputs.load_network(found, config.model.name)
    if stored.num_classes != dataset.num_classes:
        raise UserError(
            f"--weights is {config.weights!r}, a network of {stored.num_classes} classes; expected "
            f"{dataset.num_classes}, the classes of --data.name {dataset.name}"
        )
    return stored


class _Work:
    """Members of one seed, in files.

    Args:
        bench: network and data.
        given: variables of the network of ``--weights``; None for a new one.
    """

    def __init__(self, bench: Bench, given: Variables | None):
        self._bench, self._given, self._config = bench, given, bench.config
        self.steps = 0

    @property
    def trains_networks(self) -> bool:
        """True if a network is trained from initial weights, or in cosine cycles."""
        cyclical = isinstance(self._config, (SnapshotConfig, CyclicalLangevinConfig))
        return self._given is None or cyclical

    def members(self) -> tuple[list[Path], dict[str, np.ndarray], dict[str, Metric]]:
        """Makes the members that are missing; returns the files of all, arrays and metrics."""
        bench, config = self._bench, self._config
        count = config.views.counts[-1]
        folder = bench.directory / MEMBERS
        if isinstance(config, DeepEnsembleConfig):
            return self._deep_ensemble(config, folder, count), {}, {}
        start = self._start()
        if isinstance(config, SwagMethodConfig):
            return self._swag(start, folder, count), {}, {}
        if isinstance(config, LaplaceMethodConfig):
            return self._laplace(start, folder, count)
        if isinstance(config, VariationalMethodConfig):
            return self._variational(start, folder, count), {}, {}
        trained = builders.trained_members(bench, start, count)
        if trained is not None:
            self.steps += getattr(trained, "stops", (0,))[-1]
            return self._kept(folder, count, lambda: trained, builders.chain_key(bench)), {}, {}
        assert start is not None
        if config.network.dropout_rate:
            make = lambda: DropoutPosterior(start)  # noqa: E731
            return self._kept(folder, count, make, builders.sample_key(bench)), {}, {}
        return [bench.directory / NETWORK], {}, {}

    def _start(self) -> Variables | None:
        """Returns the network that the method starts from, trained if it has to be.

        Snapshots and cyclical SGLD start from initial weights unless ``--weights`` is given.
        """
        bench, path = self._bench, self._bench.directory / NETWORK
        trained = isinstance(self._config, SingleMethodConfig)
        if self._given is None and not trained:
            return None
        if self._given is None:
            self.steps += bench.timing.total_steps
        if path.exists():
            return load_network(path).variables
        found = self._given
        if found is None:
            found = next(builders.first_network(bench).members(bench.key))
        self._save(path, found, note={})
        return found

    def _deep_ensemble(self, config: DeepEnsembleConfig, folder: Path, count: int) -> list[Path]:
        bench, given = self._bench, self._given
        self.steps = (count - (given is not None)) * bench.timing.total_steps
        first = folder / "0.safetensors"
        if given is not None and not first.exists():
            self._save(first, given, note={"member": 0})

        def make() -> Posterior:
            found = builders.trained_members(bench, None, count)
            assert found is not None
            return found

        return self._kept(folder, count, make, builders.chain_key(bench))

    def _swag(self, start: Variables | None, folder: Path, count: int) -> list[Path]:
        bench = self._bench
        stops = builders.iterate_steps(bench)
        self.steps += stops[-1]

        def make() -> Posterior:
            chain = builders.trained_members(bench, start, len(stops))
            assert chain is not None
            files = self._kept(
                bench.directory / "iterates", len(stops), lambda: chain, builders.chain_key(bench)
            )
            return builders.swag_posterior(bench, (load_network(f).variables for f in files))

        return self._kept(folder, count, make, builders.sample_key(bench))

    def _variational(self, start: Variables | None, folder: Path, count: int) -> list[Path]:
        bench = self._bench
        assert start is not None
        chain = builders.variational_chain(bench, start)
        self.steps += chain.stops[-1]

        def make() -> Posterior:
            (file,) = self._kept(
                bench.directory / "variational", 1, lambda: chain, builders.chain_key(bench)
            )
            return builders.variational_posterior(load_network(file).variables)

        return self._kept(folder, count, make, builders.sample_key(bench))

    def _laplace(
        self, start: Variables | None, folder: Path, count: int
    ) -> tuple[list[Path], dict[str, np.ndarray], dict[str, Metric]]:
        bench, path = self._bench, self._bench.directory / SCALES
        assert start is not None

        def make() -> Posterior:
            posterior = builders.laplace_posterior(bench, start)
            if not path.exists():
                judged = builders.judge_scales(bench, posterior)
                content = {"scales": list(judged), "scores": list(judged.values())}
                write_json_atomically(path, content)
            scale = _chosen_scale(path)[0]
            return dataclasses.replace(posterior, scale=scale)

        files = self._kept(folder, count, make, builders.sample_key(bench))
        scale, content = _chosen_scale(path)
        assert bench.held_out is not None
        arrays = {f"laplace/{name}": np.array(values) for name, values in content.items()}
        note = "best calibrated log-likelihood on held-out training images"
        return files, arrays, {"scale": Metric(scale, "x", len(bench.held_out), note)}

    def _kept(
        self, folder: Path, count: int, make: Callable[[], Posterior], key: Any
    ) -> list[Path]:
        """Makes the members that a folder lacks, in order, and returns all files."""
        files = [folder / f"{number}.safetensors" for number in range(count)]
        done = next((n for n, file in enumerate(files) if not file.exists()), count)
        if done == count:
            return files
        members = make().members(key, first=done)
        for number in range(done, count):
            self._save(files[number], next(members), note={"member": number})
        return files

    def _save(self, path: Path, variables: Variables, *, note: dict[str, Any]) -> None:
        bench = self._bench
        path.parent.mkdir(parents=True, exist_ok=True)
        save_network(
            path,
            model=self._config.model.name,
            num_classes=bench.num_classes,
            variables=variables,
            normalisation=bench.normalisation,
            note={
                "seed": bench.seed, "data": self._config.data.name, "overrides": bench.overrides,
                **note,
            },
        )  # fmt: skip


def _chosen_scale(path: Path) -> tuple[float, dict[str, list[float]]]:
    """Returns the best scale, and all scales with their scores."""
    content = read_json_object(path, remedy="remove it", entries={"scales": list, "scores": list})
    return content["scales"][int(np.argmax(content["scores"]))], content
