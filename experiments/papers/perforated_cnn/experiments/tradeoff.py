"""Runs the figure of NIN: perforation, larger stride and smaller images over speed-up."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
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
    PerforationPlan,
    SmallerInput,
    conv_layers,
    layer_mask,
    load_plan,
    make_plan,
    perforate,
)
from adaptive_nets.perforation.candidates import searched_layers
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
# Distance of the seeds of draws, so that those of neighbouring runs differ.
SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Point:
    """Network of reduced cost.

    Attributes:
        method: One of `METHODS`.
        setting: Label: keep fraction, step of a search, or side of the image.
        draw: Index of the draw of its masks or offsets, from 0.
        wrap: Builds it from the network, whose dropout may differ in training.
        macs: Multiply-accumulates of one image.
    """

    method: str
    setting: str
    draw: int
    wrap: Any
    macs: int

    @property
    def name(self) -> str:
        """Name in files and messages."""
        return f"{self.method.replace(' ', '-')}-{self.setting}-{self.draw}"


def run(
    config: TradeoffRunConfig,
    *,
    dataset: Dataset,
    directory: Path,
    seed: int,
    progress: ProgressReporter,
    title: str,
) -> Outcome:
    """Measures and tunes every point; see `experiments.suite.experiment.Runner`.

    Every point and the whole network are tuned with the same recipe, equally long. Networks of one
    draw see the data in the same order.
    """
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

    def tuned(name: str, network: Any, draw: int, shown: str) -> dict[str, float]:
        return stages.tune_and_test(
            network,
            source.variables,
            config.train,
            cache=directory / VALUES,
            name=f"{name}: tuned",
            dataset=dataset,
            directory=directory / name,
            seed=seed + SEEDS * draw,
            progress=progress,
            title=shown,
        )

    whole = error("whole", source.model)
    draws = range(config.tradeoff.draws)
    control = [
        tuned(f"whole-{draw}", trainable, draw, f"{title}: whole ({draw + 1} of {len(draws)})")
        for draw in draws
    ]
    before, after = [], []
    for number, point in enumerate(points, start=1):
        before.append(error(point.name, point.wrap(source.model)))
        shown = f"{title}: {point.name} ({number} of {len(points)})"
        after.append(tuned(point.name, point.wrap(trainable), point.draw, shown))
        progress.show(f"{shown}: error {before[-1]:.2f} %, tuned {100 * after[-1]['error']:.2f} %")
    after_errors = [100 * found["error"] for found in after]
    control_errors = [100 * found["error"] for found in control]
    speedups = _speedups(source, points, config)
    macs = np.array([point.macs for point in points], np.float64)
    whole_macs = count_macs(config.train.model.name, input_shape=source.image_shape)
    curves = mean_curves([(p.method, p.setting) for p in points], speedups, after_errors)
    best, compared = perforation_best(*curves, whole=statistics.fmean(control_errors))
    count = source.test.size
    metrics = {
        "error": Metric(whole, "%", count, f"network {source.digest}"),
        "control_error": Metric(
            statistics.fmean(control_errors), "%", count,
            f"whole network tuned as long as every point, mean of {len(draws)}",
        ),
        "perforation_best": Metric(
            best, "%", compared,
            f"after tuning, means of {len(draws)} draws; baselines interpolated to equal speed-up",
        ),
    }  # fmt: skip
    arrays = {
        "method": np.array([METHODS.index(point.method) for point in points]),
        "setting": np.array([point.setting for point in points], np.str_),
        "draw": np.array([point.draw for point in points]),
        "speedup": np.array(speedups),
        "macs_reduction": whole_macs / macs,
        "error": np.array(before),
        "tuned_error": np.array(after_errors),
        "control_error": np.array(control_errors),
    }
    seconds = sum(found["seconds"] for found in (*control, *after))
    return Outcome(metrics, arrays, seconds=seconds, steps=int(control[0]["steps"]))


def tradeoff_points(source: Source, config: TradeoffRunConfig, *, seed: int) -> list[Point]:
    """Returns all networks of the three curves; smaller images have one draw."""
    values, shape = config.tradeoff, source.image_shape
    layers = conv_layers(source.model, source.variables, shape)
    macs = ExecutedMacs(source.model, source.variables, shape)
    points = []
    for draw in range(values.draws):
        of_draw = seed + SEEDS * draw
        for keep, plan in _plans(source, layers, config, seed=of_draw, run_seed=seed):

            def perforated(model, plan=plan):
                return perforate(model, source.variables, plan)

            points.append(Point("perforation", keep, draw, perforated, macs(plan)))
        for keep in values.keeps:
            keeps = {layer.name: keep for layer in searched_layers(layers)}

            def strided(model, keeps=keeps, of_draw=of_draw):
                return FractionalStride(model, jax.random.key(of_draw), keeps)

            cost = strided(source.model).macs(source.variables, shape)
            points.append(Point("stride", f"{keep:g}", draw, strided, cost))
    side = min(shape[:2])
    for size in values.sizes:
        require(size <= side, "tradeoff.sizes", size, f"at most {side}, the side of the images")

        def smaller(model, size=size):
            return SmallerInput(model, (size, size))

        cost = count_macs(config.train.model.name, input_shape=(size, size, shape[2]))
        points.append(Point("smaller input", str(size), 0, smaller, cost))
    return points


def _plans(
    source: Source,
    layers: tuple[ConvLayer, ...],
    config: TradeoffRunConfig,
    *,
    seed: int,
    run_seed: int,
) -> list[tuple[str, Any]]:
    """Returns plans of the configured search, else of all layers at equal fractions.

    Args:
        source: The network.
        layers: Its convolutions.
        config: Configuration of the run.
        seed: Seed of the draw: of random masks, of the images of impacts, and of the ties of
            nearest-kept maps, which are all that differs between draws from a search.
        run_seed: Seed of the run.
    """
    values, key = config.tradeoff, jax.random.key(seed)
    if values.search:
        found = resolve(values.search, SEARCH, flag="tradeoff.search", seed=run_seed)
        paths = sorted((found.path / "plans").glob("step*.safetensors"))
        if not paths:
            raise UserError(
                f"--tradeoff.search is {values.search!r}, whose search has no steps; "
                "expected the folder of a run of a row of Table 3"
            )
        # As many points as the other methods have, evenly spaced over the path.
        chosen = np.linspace(0, len(paths), len(values.keeps) + 1)[1:].round().astype(int) - 1
        return [
            (paths[i].stem, _with_new_ties(load_plan(paths[i]), key))
            for i in dict.fromkeys(chosen.tolist())
        ]
    impacts = None
    empty = make_plan(key, layers, {}, model=config.train.model.name)
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
                key, layers, dict.fromkeys(rates, 1 - keep), values.kind, impacts,
                model=config.train.model.name,
            ),
        )
        for keep in values.keeps
    ]  # fmt: skip


def _with_new_ties(plan: PerforationPlan, key: jax.Array) -> PerforationPlan:
    redrawn = {
        name: layer_mask(jax.random.fold_in(key, number), layer.mask, layer.kind)
        for number, (name, layer) in enumerate(sorted(plan.layers.items()))
    }
    return plan.replace(**redrawn)


def mean_curves(
    points: Sequence[tuple[str, str]], speedups: Sequence[float], errors: Sequence[float]
) -> tuple[list[str], list[float], list[float]]:
    """Averages speed-ups and errors over the draws of each (method, setting).

    Returns:
        Methods, mean speed-ups and mean errors, in the order of first appearance.
    """
    groups: dict[tuple[str, str], list[int]] = {}
    for index, point in enumerate(points):
        groups.setdefault(point, []).append(index)
    means = [
        [statistics.fmean(values[i] for i in chosen) for chosen in groups.values()]
        for values in (speedups, errors)
    ]
    return [method for method, _ in groups], means[0], means[1]


def _speedups(source: Source, points: list[Point], config: TradeoffRunConfig) -> list[float]:
    """Times the first draw of every setting; the time does not depend on which positions it keeps.

    Returns:
        Speed-up of each point, that of its setting.
    """
    first = {(p.method, p.setting): p.wrap(source.model) for p in points if p.draw == 0}
    batch = measures.random_images(config.timing.batches[-1], source.image_shape)
    networks = {"": source.model, **{"/".join(name): n for name, n in first.items()}}
    times = measures.interleaved_seconds(
        networks, source.variables, batch, seconds=config.timing.seconds
    )
    return [
        statistics.median(
            slow / fast
            for slow, fast in zip(times[""], times[f"{p.method}/{p.setting}"], strict=True)
        )
        for p in points
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
        whole: Error of the whole network tuned equally, %, at which all curves start, speed-up 1.

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
