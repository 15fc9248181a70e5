"""Runs one seed: ponder maps of all pictures, a grid of parameters, halves that report."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptive_nets.data.fixations import FixationSet
from adaptive_nets.data.pictures import fitted_size, resize_picture
from adaptive_nets.data.splits import Dataset
from adaptive_nets.ensembling.stores import read_arrays, write_arrays
from adaptive_nets.models.weights.trained import assemble
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.saliency import (
    auc_judd,
    centre_baseline,
    first_halves,
    random_halves,
    resized,
    score_grid,
    smoothed_map,
)
from experiments.papers.sact_saliency.fields import CentreConfig, PicturesConfig, SaliencyConfig
from experiments.papers.sact_saliency.measures import (
    Division,
    HumanMaps,
    counted,
    divide,
    division_metrics,
    other_measures,
)
from experiments.papers.sact_saliency.pictures import picture_arrays
from experiments.shared.adaptive_depth.measures import flops_metrics
from experiments.shared.adaptive_depth.ponder_maps import PonderNetwork, ponder_maps
from experiments.shared.digests import array_digest
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import RANDOM, RunInputField, load_network, resolve

_FIELD = RunInputField("required", random=True)
# Pictures that are decoded and measured at a time, so that a large set fits the memory.
_CHUNK = 64
_OTHERS = 1_000_003


def run(
    config: CentreConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Scores saliency maps; see `experiments.suite.experiment.Runner`."""
    began = time.monotonic()
    pictures: FixationSet = dataset.streams["train"]
    if pictures.size < 2:
        raise UserError(
            f"--fixations.limit leaves {pictures.size} picture; expected two, one for each half"
        )
    halves = (
        first_halves(pictures.categories)
        if config.halves.rule == "first"
        else random_halves(pictures.size, repeats=config.halves.repeats, seed=seed)
    )
    marks: dict[str, Any] = {
        "pictures": dataset.fingerprint,
        "fixations": dataclasses.asdict(config.fixations),
        "smoothing": dataclasses.asdict(config.smoothing),
        "seed": seed,
    }
    maps: list[np.ndarray] | None = None
    metrics: dict[str, Metric] = {}
    if isinstance(config, SaliencyConfig):
        network = find_network(config, seed=seed)
        marks |= {
            "network": array_digest(network.variables),
            "size": [config.pictures.longer_side, config.pictures.multiple],
        }
        store = _Store(directory, marks)
        maps, metrics = _measured_maps(network, pictures, config.pictures, store, progress, title)
    scorer = _Scorer(config, pictures, maps, seed)
    centre, grid, derived = scorer.scores(_Store(directory, marks), progress, title)
    divisions = divide(halves, centre, grid, config.smoothing)
    progress.show(f"{title}: measures of the halves that report")
    metrics |= division_metrics(divisions, config.smoothing, scorer.other_measures)
    metrics["derived"] = Metric(
        100 * float(np.mean(derived)), "%", pictures.size,
        "pictures whose single fixations are derived from blurred ones",
    )  # fmt: skip
    arrays = {"auc/centre": centre}
    if grid is not None and maps is not None:
        arrays |= {"auc/grid": grid.mean(axis=0), "halves": halves}
        arrays |= picture_arrays(pictures, maps, scorer.human)
    return Outcome(metrics, arrays, seconds=time.monotonic() - began, steps=0)


def find_network(config: SaliencyConfig, *, seed: int) -> PonderNetwork:
    """Loads the network of a configuration.

    Raises:
        UserError: none is named, it cannot be read, or it has no ponder map.
    """
    source, flag = config.network.source, "--network.source"
    if not source:
        raise UserError(
            f"{flag} is ''; expected the folder of a finished run of a network of adaptive depth, "
            "a weights file, or 'random' to try the command"
        )
    if source == RANDOM:
        return PonderNetwork.untrained(config.network.name, seed=seed)
    found = resolve(source, _FIELD, flag="network.source", seed=seed)
    stored = load_network(found, config.network.name if found.kind == "weights" else None)
    module, variables, _ = assemble(stored, source=found.path, record=None)
    return PonderNetwork.of(
        module, variables, stored.normalisation, name=stored.model, source=f"{flag} {source}"
    )


@dataclasses.dataclass(frozen=True)
class _Store:
    """Finished parts of a run, kept in the folder of the seed, from where it resumes."""

    directory: Path
    marks: Mapping[str, Any]

    def arrays(
        self, name: str, compute: Callable[[], Mapping[str, np.ndarray]]
    ) -> Mapping[str, np.ndarray]:
        """Returns the arrays of a part; computes and writes them if they are not there."""
        path = self.directory / f"{name}.npz"
        found = read_arrays(path, self.marks)
        if found is None:
            found = compute()
            write_arrays(path, found, self.marks)
        return found


def _chunks(count: int) -> Iterator[range]:
    for start in range(0, count, _CHUNK):
        yield range(start, min(start + _CHUNK, count))


def _measured_maps(
    network: PonderNetwork, pictures: FixationSet, config: PicturesConfig, store: _Store,
    progress: ProgressReporter, title: str,
) -> tuple[list[np.ndarray], dict[str, Metric]]:  # fmt: skip
    """Returns the ponder map of each picture at the network's size, and the cost."""
    maps: list[np.ndarray] = []
    costs: list[np.ndarray] = []

    def compute(rows: range) -> dict[str, np.ndarray]:
        chunk = []
        for i in rows:
            example = pictures.read(i)
            size = (example.image.shape[0], example.image.shape[1])
            size = fitted_size(size, config.longer_side, multiple=config.multiple)
            network.check_size(size, name=f"picture {example.name} at --pictures.longer-side")
            chunk.append(_in_channels(resize_picture(example.image, size), network.channels))
        found, flops = ponder_maps(
            network, chunk, batch_size=config.batch_size,
            tick=functools.partial(_tick, progress, rows.start),
        )  # fmt: skip
        return {"flops": flops, **{f"map{i}": map_ for i, map_ in zip(rows, found, strict=True)}}

    progress.start(f"{title}: ponder maps", done=0, total=pictures.size, unit="pictures")
    for rows in _chunks(pictures.size):
        part = store.arrays(f"maps{rows.start:05}", functools.partial(compute, rows))
        maps += [part[f"map{i}"] for i in rows]
        costs.append(part["flops"])
        progress.update(rows.stop)
    progress.finish()
    flops, count = np.concatenate(costs), pictures.size
    plain = [network.plain_flops((map_.shape[0], map_.shape[1])) for map_ in maps]
    shares, ponder = flops / np.array(plain), np.array([map_.mean() for map_ in maps])
    metrics = flops_metrics(flops)
    metrics["share"] = Metric(100 * float(shares.mean()), "%", count, "of the plain network")
    metrics["share_std"] = Metric(100 * float(shares.std()), "%", count, "over pictures")
    metrics["ponder"] = Metric(float(ponder.mean()), "units", count, "summed over blocks")
    metrics["ponder_std"] = Metric(float(ponder.std()), "units", count, "over pictures")
    return maps, metrics


def _tick(progress: ProgressReporter, start: int, done: int) -> None:
    progress.update(start + done)


def _in_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3:
        return pixels
    return np.rint(pixels.mean(axis=-1, keepdims=True)).astype(np.uint8)


class _Scorer:
    """Scores of all pictures; fixations are read when they are needed.

    Args:
        config: configuration of the run.
        pictures: pictures with fixations.
        maps: ponder map of each picture; None for the centre baseline alone.
        seed: seed of fixations that are drawn, and of the other pictures of the shuffled AUC.
    """

    def __init__(
        self, config: CentreConfig, pictures: FixationSet, maps: Sequence[np.ndarray] | None,
        seed: int,
    ):  # fmt: skip
        self._config, self._pictures, self._maps, self._seed = config, pictures, maps, seed
        self._places: dict[int, np.ndarray] = {}

    def human(self, number: int) -> HumanMaps:
        """Returns the fixations on a picture."""
        seed = self._seed * self._pictures.size + number
        human = HumanMaps.of(self._pictures.read(number), self._config.fixations, seed=seed)
        self._places[number] = human.places()
        return human

    def scores(
        self, store: _Store, progress: ProgressReporter, title: str
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """Computes AUC-Judd of every picture.

        Returns:
            float[N] of the centre baseline; float[N, S, W] at all candidates, None without maps;
            and bool[N], whether the single fixations are derived.
        """
        parts, count = [], self._pictures.size
        progress.start(f"{title}: parameters", done=0, total=count, unit="pictures")
        for rows in _chunks(count):
            compute = functools.partial(self._chunk_scores, rows, progress)
            parts.append(store.arrays(f"scores{rows.start:05}", compute))
            progress.update(rows.stop)
        progress.finish()
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return joined["centre"], joined.get("grid"), joined["derived"]

    def _chunk_scores(self, rows: range, progress: ProgressReporter) -> dict[str, np.ndarray]:
        smoothing = self._config.smoothing
        centre, grid, derived = [], [], []
        for i in rows:
            human = self.human(i)
            size = (human.points.shape[0], human.points.shape[1])
            derived.append(human.derived)
            baseline = centre_baseline(size, width=smoothing.centre_width)
            centre.append(auc_judd(baseline, human.points))
            if self._maps is not None:
                grid.append(
                    score_grid(
                        self._maps[i], human.points, sigmas=smoothing.sigmas,
                        centre_weights=smoothing.centre_weights,
                        centre_width=smoothing.centre_width,
                    )
                )  # fmt: skip
            progress.update(i + 1)
        found = {"centre": np.array(centre), "derived": np.array(derived, np.bool_)}
        return found | ({"grid": np.stack(grid)} if grid else {})

    def other_measures(self, method: str, division: Division) -> Mapping[str, Sequence[float]]:
        """Computes the measures other than AUC-Judd of the pictures that report."""
        columns: dict[str, list[float]] = {}
        for i in division.reporting:
            human = self.human(int(i))
            saliency = self._saliency(method, division, int(i), human.points.shape)
            others = counted(self._other_places(int(i)), human.points.shape)
            for name, value in other_measures(saliency, human, others).items():
                columns.setdefault(name, []).append(value)
        return columns

    def _saliency(
        self, method: str, division: Division, number: int, shape: tuple[int, ...]
    ) -> np.ndarray:
        smoothing = self._config.smoothing
        size = (shape[0], shape[1])
        choice = division.ponder if method == "ponder" else division.both
        if method == "centre" or choice is None or self._maps is None:
            return centre_baseline(size, width=smoothing.centre_width)
        ponder = self._maps[number]
        weight = 0.0 if method == "ponder" else smoothing.centre_weights[choice.centre_weight]
        saliency = smoothed_map(
            ponder, sigma=smoothing.sigmas[choice.sigma] * max(ponder.shape), centre_weight=weight,
            centre_width=smoothing.centre_width,
        )  # fmt: skip
        return resized(saliency, size)

    def _other_places(self, number: int) -> np.ndarray:
        """Returns the fixations on some other pictures, as shares of height and width."""
        others = np.delete(np.arange(self._pictures.size), number)
        rng = np.random.default_rng((self._seed, _OTHERS, number))
        count = min(self._config.fixations.others, others.size)
        chosen = rng.choice(others, count, replace=False)
        for i in chosen:
            if int(i) not in self._places:  # Scored before the run resumed.
                self.human(int(i))
        return np.concatenate([self._places[int(i)] for i in chosen])
