"""Runs the figure of NIN: perforation, larger stride and smaller images over speed-up."""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path
from typing import Any

import jax
import numpy as np

from adaptive_nets.analysis import count_macs
from adaptive_nets.analysis.executed_macs import ExecutedMacs
from adaptive_nets.data.splits import Dataset
from adaptive_nets.models import create_model
from adaptive_nets.perforation import (
    ConvLayer,
    FractionalStride,
    SmallerInput,
    conv_layers,
    load_plan,
    make_plan,
    perforate,
)
from adaptive_nets.perforation.search import searched_layers
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter
from adaptive_nets.training.config import require
from experiments.papers.perforated_cnn import measures
from experiments.papers.perforated_cnn.configs.fields import TradeoffRunConfig
from experiments.papers.perforated_cnn.experiments import stages
from experiments.papers.perforated_cnn.experiments.source import Source, load_source
from experiments.suite.experiment import Metric, Outcome
from experiments.suite.run_inputs import RunInputField, resolve

SEARCH = RunInputField(part="search")
METHODS = ("perforation", "stride", "smaller input")
VALUES = "values.json"


@dataclasses.dataclass(frozen=True)
class Point:
    """Network of reduced cost.

    Attributes:
        method: One of `METHODS`.
        setting: Label: keep fraction, step of a search, or side of the image.
        wrap: Builds it from the network, whose dropout may differ in training.
        macs: Multiply-accumulates of one image.
    """

    method: str
    setting: str
    wrap: Any
    macs: int

    @property
    def name(self) -> str:
        """Name in files and messages."""
        return f"{self.method.replace(' ', '-')}-{self.setting}"


def run(
    config: TradeoffRunConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures and tunes every point; see `experiments.suite.experiment.Runner`."""
    measures.check_device(config.perforation.device)
    values = config.train
    source = load_source(values.data, values.model, config.perforation.source, dataset, seed=seed)
    points = tradeoff_points(source, config, seed=seed)
    trainable = create_model(
        values.model.name,
        num_classes=dataset.num_classes,
        dropout_rate=config.network.dropout_rate,
    )
    batch_size = values.data.eval_batch_size

    def error(name: str, network: Any) -> float:
        def measure() -> dict[str, float]:
            return stages.evaluate_split(
                network, source.variables, source.test, batch_size=batch_size
            )

        return 100 * stages.cached_json(directory / VALUES, f"{name}: error", measure)["error"]

    whole = error("whole", source.model)
    before, after, seconds = [], [], 0.0
    for number, point in enumerate(points, start=1):
        before.append(error(point.name, point.wrap(source.model)))
        shown = f"{title}: {point.name} ({number} of {len(points)})"
        tuned = stages.tune(
            point.wrap(trainable),
            source.variables,
            config.train,
            dataset=dataset,
            directory=directory / point.name,
            seed=seed,
            progress=progress,
            title=shown,
        )
        seconds += tuned.seconds

        def tuned_error(tuned=tuned) -> dict[str, float]:
            return tuned.evaluate(tuned.state.eval_variables, tuned.test)

        found = stages.cached_json(directory / VALUES, f"{point.name}: tuned", tuned_error)
        after.append(100 * found["error"])
        progress.show(f"{shown}: error {before[-1]:.2f} %, tuned {after[-1]:.2f} %")
    speedups = _speedups(source, points, config)
    macs = np.array([point.macs for point in points], np.float64)
    whole_macs = count_macs(config.train.model.name, input_shape=source.image_shape)
    best, compared = perforation_best(
        [point.method for point in points], speedups, after, whole=whole
    )
    count = source.test.size
    steps = tuned.timing.total_steps if points else 0
    metrics = {
        "error": Metric(whole, "%", count, f"network {source.digest}"),
        "perforation_best": Metric(
            best, "%", compared, "after tuning; baselines interpolated to equal speed-up"
        ),
    }
    arrays = {
        "method": np.array([METHODS.index(point.method) for point in points]),
        "setting": np.array([point.setting for point in points], np.str_),
        "speedup": np.array(speedups),
        "macs_reduction": whole_macs / macs,
        "error": np.array(before),
        "tuned_error": np.array(after),
    }
    return Outcome(metrics, arrays, seconds=seconds, steps=steps)


def tradeoff_points(source: Source, config: TradeoffRunConfig, *, seed: int) -> list[Point]:
    """Returns all networks of the three curves."""
    values, shape = config.tradeoff, source.image_shape
    layers = conv_layers(source.model, source.variables, shape)
    macs = ExecutedMacs(source.model, source.variables, shape)
    points = []
    for keep, plan in _plans(source, layers, config, seed=seed):

        def perforated(model, plan=plan):
            return perforate(model, source.variables, plan)

        points.append(Point("perforation", keep, perforated, macs(plan)))
    for keep in values.keeps:
        keeps = {layer.name: keep for layer in searched_layers(layers)}

        def strided(model, keeps=keeps):
            return FractionalStride(model, jax.random.key(seed), keeps)

        cost = strided(source.model).macs(source.variables, shape)
        points.append(Point("stride", f"{keep:g}", strided, cost))
    side = min(shape[:2])
    for size in values.sizes:
        require(size <= side, "tradeoff.sizes", size, f"at most {side}, the side of the images")

        def smaller(model, size=size):
            return SmallerInput(model, (size, size))

        cost = count_macs(config.train.model.name, input_shape=(size, size, shape[2]))
        points.append(Point("smaller input", str(size), smaller, cost))
    return points


def _plans(
    source: Source, layers: tuple[ConvLayer, ...], config: TradeoffRunConfig, *, seed: int
) -> list[tuple[str, Any]]:
    """Returns plans of the configured search, else of all layers at equal fractions."""
    values = config.tradeoff
    if values.search:
        found = resolve(values.search, SEARCH, flag="tradeoff.search", seed=seed)
        paths = sorted((found.path / "plans").glob("step*.safetensors"))
        if not paths:
            raise UserError(
                f"--tradeoff.search is {values.search!r}, whose search has no steps; "
                "expected the folder of a run of a row of Table 3"
            )
        # As many points as the other methods have, evenly spaced over the path.
        chosen = np.linspace(0, len(paths), len(values.keeps) + 1)[1:].round().astype(int) - 1
        return [(paths[i].stem, load_plan(paths[i])) for i in dict.fromkeys(chosen.tolist())]
    impacts = None
    empty = make_plan(jax.random.key(seed), layers, {}, model=config.train.model.name)
    if values.kind == "impact":
        impacts_fn = stages.impacts_fn(
            source, count=values.impact_images, batch_size=values.batch_size, seed=seed + 1
        )
        impacts = impacts_fn(empty, lambda: None)
    rates = {layer.name for layer in searched_layers(layers)}
    return [
        (
            f"{keep:g}",
            make_plan(
                jax.random.key(seed), layers, dict.fromkeys(rates, 1 - keep), values.kind, impacts,
                model=config.train.model.name,
            ),
        )
        for keep in values.keeps
    ]  # fmt: skip


def _speedups(source: Source, points: list[Point], config: TradeoffRunConfig) -> list[float]:
    networks = {"": source.model, **{p.name: p.wrap(source.model) for p in points}}
    batch = measures.random_images(config.timing.batches[-1], source.image_shape)
    times = measures.interleaved_seconds(
        networks, source.variables, batch, seconds=config.timing.seconds
    )
    return [
        statistics.median(
            slow / fast for slow, fast in zip(times[""], times[point.name], strict=True)
        )
        for point in points
    ]


def perforation_best(
    methods: list[str], speedups: list[float], errors: list[float], *, whole: float
) -> tuple[float | None, int]:
    """Computes the share of perforation's points at which no baseline has a lower error.

    Baselines are interpolated linearly to the speed-up of a point. Points that no baseline reaches
    do not count.

    Args:
        methods: Methods of the points.
        speedups: Speed-ups of the points.
        errors: Errors of the points, %.
        whole: Error of the original network, %, at which all curves start with speed-up 1.

    Returns:
        The share, %, or None if no point counts; and the number of points that count.
    """
    curves = {}
    for method in METHODS:
        chosen = [i for i, name in enumerate(methods) if name == method]
        curve = sorted([(1.0, whole), *((speedups[i], errors[i]) for i in chosen)])
        curves[method] = np.array(curve).T
    wins = []
    for speedup, error in sorted(
        (s, e) for m, s, e in zip(methods, speedups, errors, strict=True) if m == "perforation"
    ):
        others = []
        for method in METHODS[1:]:
            reached, known = curves[method]
            if len(reached) > 1 and reached[0] <= speedup <= reached[-1]:
                others.append(float(np.interp(speedup, reached, known)))
        if others:
            wins.append(error <= min(others))
    return (100 * float(np.mean(wins)), len(wins)) if wins else (None, 0)
