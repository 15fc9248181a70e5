"""Ensembling methods of the configurations: trainings and posteriors of one seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from adaptive_nets.ensembling import RunningAverage, calibrated_log_likelihood
from adaptive_nets.ensembling.posterior import (
    ChainEnsemble,
    ConstantRate,
    CosineCycles,
    DeepEnsemble,
    KfacPosterior,
    MeanFieldNetwork,
    MeanFieldPosterior,
    PiecewiseRate,
    Posterior,
    SwagMoments,
    SwagPosterior,
    TriangularCycles,
    Variables,
    cycle_ends,
    cycle_middles,
    init_mean_field,
    kronecker_factors,
    last_of_cycles,
    last_steps,
    mean_field_optimiser,
    sgd,
    statistics_estimator,
)
from adaptive_nets.ensembling.posterior.mean_field import kl_divergence
from adaptive_nets.training.classification import classification
from adaptive_nets.training.config import require
from experiments.papers.tta.methods.bench import Bench
from experiments.papers.tta.methods.configs import (
    CyclicalLangevinConfig,
    DeepEnsembleConfig,
    FastGeometricConfig,
    LaplaceMethodConfig,
    SingleMethodConfig,
    SnapshotConfig,
    SwagMethodConfig,
    VariationalMethodConfig,
)

# Purposes that are folded into the key of a seed. Never renumber.
_CHAIN, _SAMPLES, _FACTORS, _CHOICE = 1001, 1002, 1003, 1004


def first_network(bench: Bench) -> DeepEnsemble:
    """Builds the ensemble whose member 0 is the network that methods start from."""
    config = bench.config
    assert isinstance(config, SingleMethodConfig)
    return _deep_ensemble(bench, config, 1)


def _deep_ensemble(bench: Bench, config: SingleMethodConfig, count: int) -> DeepEnsemble:
    steps = bench.timing.total_steps
    rate = _decay(config, config.optimiser.learning_rate, steps)
    optimiser = sgd(
        rate, momentum=config.optimiser.momentum, weight_decay=config.optimiser.weight_decay
    )
    return DeepEnsemble(
        bench.training(optimiser), steps, count, bench.file("").parent, bench.progress, bench.title
    )


def _decay(config: SingleMethodConfig, peak: float, steps: int) -> PiecewiseRate:
    decay = config.decay
    return PiecewiseRate(peak, steps, decay.hold, decay.end, decay.final)


def _chain(
    bench: Bench, rate: Callable[[Any], Any], stops: tuple[int, ...], start: Variables | None,
    noise: dict[str, Any] | None = None,
) -> ChainEnsemble:  # fmt: skip
    values = bench.config.optimiser
    optimiser = sgd(rate, momentum=values.momentum, weight_decay=values.weight_decay, noise=noise)
    return ChainEnsemble(
        bench.training(optimiser), stops, start, bench.file("chain"), bench.progress, bench.title
    )


def trained_members(bench: Bench, start: Variables | None, count: int) -> Posterior | None:
    """Returns the method if it trains its members, or the iterates of SWAG; None otherwise.

    Args:
        bench: network and data.
        start: trained network to start from; None for a new one.
        count: number of members.
    """
    config = bench.config
    if isinstance(config, DeepEnsembleConfig):
        return _deep_ensemble(bench, config, count)
    if isinstance(config, SnapshotConfig):
        steps = bench.timing.total_steps
        rate = CosineCycles(config.optimiser.learning_rate, steps)
        return _chain(bench, rate, cycle_ends(steps, count), start)
    if isinstance(config, CyclicalLangevinConfig):
        return _cyclical_langevin(bench, config, start, count)
    if isinstance(config, FastGeometricConfig):
        length = max(bench.timing_of(config.cycle.length).total_steps, 2)
        rate = TriangularCycles(config.cycle.high, config.cycle.low, length)
        return _chain(bench, rate, cycle_middles(length, count), start)
    if isinstance(config, SwagMethodConfig):
        return _chain(bench, ConstantRate(config.swag.learning_rate), iterate_steps(bench), start)
    return None


def _cyclical_langevin(
    bench: Bench, config: CyclicalLangevinConfig, start: Variables | None, count: int
) -> ChainEnsemble:
    steps, noise = bench.timing.total_steps, config.noise
    every = bench.timing_of(noise.every).total_steps
    require(
        noise.samples * every <= steps, "noise.samples", noise.samples,
        f"at most {steps // every}, members {noise.every} apart in {config.schedule.length}",
    )  # fmt: skip
    cycles = -(-count // noise.samples)
    stops = last_of_cycles(steps, cycles, samples=noise.samples, every=every)[:count]
    options = {
        "temperature": noise.temperature,
        "examples": bench.data.size,
        "active": last_steps(steps, noise.samples * every),
    }
    rate = CosineCycles(config.optimiser.learning_rate, steps)
    return _chain(bench, rate, stops, start, options)


def iterate_steps(bench: Bench) -> tuple[int, ...]:
    """Returns the steps of the iterates of SWAG.

    Raises:
        UserError: there are fewer than two.
    """
    config = bench.config
    assert isinstance(config, SwagMethodConfig)
    every = bench.timing_of(config.swag.every).total_steps
    stops = cycle_ends(every, bench.timing_of(config.swag.length).total_steps // every)
    require(
        len(stops) >= 2, "swag.every", config.swag.every,
        f"at most half of --swag.length {config.swag.length}, for two iterates",
    )  # fmt: skip
    return stops


def swag_posterior(bench: Bench, iterates: Iterator[Variables]) -> SwagPosterior:
    """Fits SWAG to iterates."""
    config = bench.config
    assert isinstance(config, SwagMethodConfig)
    moments, variables = None, {}
    for variables in iterates:
        moments = moments or SwagMoments.empty(variables["params"])
        moments = moments.add(variables["params"], rank=config.swag.rank)
    assert moments is not None
    others = {name: tree for name, tree in variables.items() if name != "params"}
    count = config.swag.statistics_images
    estimate = statistics_estimator(bench.network, lambda: bench.inputs(count))
    return SwagPosterior(moments, others, estimate, config.swag.scale)


def variational_chain(bench: Bench, start: Variables) -> ChainEnsemble:
    """Builds the training of mean-field inference; its only member has the trained posterior."""
    config = bench.config
    assert isinstance(config, VariationalMethodConfig)
    values, examples = config.variational, bench.data.size
    prior = 1.0 / _precision(bench)
    steps = bench.timing_of(values.length).total_steps

    def penalty(params: Any, step: Any) -> dict[str, Any]:
        del step
        # The loss is a mean over images, so the divergence is divided by their number.
        return {"kl": values.kl_weight / examples * kl_divergence(params, prior)}

    objective = classification(penalty=penalty)
    optimiser = mean_field_optimiser(
        _decay(config, values.learning_rate, steps),
        momentum=config.optimiser.momentum,
        sigma_rate=values.sigma_rate,
    )
    training = bench.training(
        optimiser,
        network=MeanFieldNetwork(bench.network, log_sigma=values.log_sigma),
        objective=lambda timing: objective,
    )
    variational = init_mean_field(start["params"], log_sigma=values.log_sigma)
    return ChainEnsemble(
        training, (steps,), {**start, "params": variational}, bench.file("chain"), bench.progress,
        bench.title,
    )  # fmt: skip


def variational_posterior(variables: Variables) -> MeanFieldPosterior:
    """Returns the posterior of a trained `variational_chain`."""
    others = {name: tree for name, tree in variables.items() if name != "params"}
    return MeanFieldPosterior(variables["params"], others)


def laplace_posterior(bench: Bench, start: Variables) -> KfacPosterior:
    """Computes the factors around a trained network; the scale is 1."""
    config = bench.config
    assert isinstance(config, LaplaceMethodConfig)
    precision = _precision(bench)
    factors = kronecker_factors(
        bench.key_of(_FACTORS), bench.module, start, bench.inputs(config.laplace.images)
    )
    return KfacPosterior(start, factors, bench.data.size, precision)


def judge_scales(bench: Bench, posterior: KfacPosterior) -> dict[float, float]:
    """Returns scale of the noise -> calibrated log-likelihood of held-out images, nats."""
    config, held_out = bench.config, bench.held_out
    assert isinstance(config, LaplaceMethodConfig)
    assert held_out is not None
    found = {}
    for scale in config.laplace.scales:
        members = dataclasses.replace(posterior, scale=scale).members(bench.key_of(_CHOICE))
        average = RunningAverage.empty(len(held_out), bench.num_classes)
        for _ in range(config.laplace.samples):
            average = average.add(bench.predict(next(members), held_out.images))
        found[scale] = calibrated_log_likelihood(
            average.log_mean(), held_out.labels, folds=config.calibration.folds,
            repeats=config.calibration.repeats, seed=bench.seed,
        )  # fmt: skip
        bench.progress.show(f"{bench.title}: scale {scale:g}: {found[scale]:.4f} nats")
    return found


def chain_key(bench: Bench) -> Any:
    """Returns the key of the members that are trained."""
    return bench.key if isinstance(bench.config, DeepEnsembleConfig) else bench.key_of(_CHAIN)


def sample_key(bench: Bench) -> Any:
    """Returns the key of the members that are sampled."""
    return bench.key_of(_SAMPLES)


def _precision(bench: Bench) -> float:
    """Returns the precision of the prior, N·wd."""
    decay = bench.config.optimiser.weight_decay
    require(decay > 0, "optimiser.weight-decay", decay, "a positive number, the prior's precision")
    return bench.data.size * decay
