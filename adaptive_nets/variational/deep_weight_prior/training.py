"""Training of a prior on the slices of source networks."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.progress import ProgressReporter, SilentProgress
from adaptive_nets.variational.deep_weight_prior.arguments import check_slices
from adaptive_nets.variational.deep_weight_prior.elbo import SlicePrior, negative_elbo


@dataclasses.dataclass(frozen=True)
class PriorHistory:
    """ELBO over training, in nats per slice.

    Attributes:
        elbo: mean over the steps of each epoch, before their updates.
        held_out_epochs: numbers of completed epochs at which held-out slices were evaluated.
        held_out_elbo: mean ELBO of the held-out slices then.
    """

    elbo: tuple[float, ...]
    held_out_epochs: tuple[int, ...]
    held_out_elbo: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class TrainedPrior[P]:
    """Prior after training, and its history.

    Attributes:
        prior: prior of the type that was given.
        history: ELBO over training.
    """

    prior: P
    history: PriorHistory


def train_prior[P: SlicePrior](
    prior: P,
    slices: Float[Any, "N h w"],
    *,
    held_out: Float[Any, "M h w"] | None = None,
    epochs: int = 300,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    seed: int = 42,
    evaluate_every: int = 10,
    progress: ProgressReporter | None = None,
) -> TrainedPrior[P]:
    """Maximises the ELBO of slices with Adam; the learning rate decays linearly to 0 [atanov2019].

    The default values are those of the authors' code. The loss is the sum over the elements of a
    slice and the mean over the batch. Every epoch has another order and leaves out its last
    N mod batch_size slices.

    Args:
        prior: initial prior, a pytree whose leaves are its parameters.
        slices: training slices, float[N, h, w].
        held_out: slices whose ELBO is recorded, float[M, h, w].
        epochs: number of passes.
        batch_size: slices per step, at most N are used.
        learning_rate: learning rate of the first step.
        seed: seed of orders and draws.
        evaluate_every: epochs between evaluations of the held-out slices; the last is one too.
        progress: reporter; None is silent.

    Raises:
        UserError: no slices, slices of another size, an argument out of range, or an ELBO that is
            not finite.
    """
    slices = check_slices(slices, prior.kernel_size)
    epochs = as_integer("epochs", epochs)
    evaluate_every = as_integer("evaluate_every", evaluate_every)
    batch_size = min(as_integer("batch_size", batch_size), len(slices))
    if not 0 < learning_rate < math.inf:
        raise UserError(f"learning_rate is {learning_rate!r}; expected a positive number")
    _check_usable("slices", slices)
    if held_out is not None:
        held_out = check_slices(held_out, prior.kernel_size)
        _check_usable("held_out", held_out)
    steps = len(slices) // batch_size
    options = {"total": epochs * steps, "learning_rate": float(learning_rate)}
    reporter = progress or SilentProgress()
    key, held_out_key = jax.random.split(jax.random.key(seed))
    state: Any = _optimiser(float(learning_rate), options["total"]).init(cast(Any, prior))
    elbos: list[float] = []
    evaluated: dict[int, float] = {}
    reporter.start("prior", done=0, total=options["total"])
    try:
        for epoch in range(1, epochs + 1):
            order_key, noise_key = jax.random.split(jax.random.fold_in(key, epoch))
            order = jax.random.permutation(order_key, len(slices))[: steps * batch_size]
            of_steps = []
            # A loop within the program would halve the speed of convolutions on a CPU.
            for index, chosen in enumerate(order.reshape(steps, batch_size)):
                step_key = jax.random.fold_in(noise_key, index)
                prior, state, elbo = _step(prior, state, slices, chosen, step_key, **options)
                of_steps.append(elbo)
                done = (epoch - 1) * steps + index + 1
                reporter.update(done, {"elbo": elbos[-1]} if elbos else None)
            elbos.append(_finite(np.mean(jax.device_get(of_steps), dtype=np.float64), epoch))
            if held_out is not None and (epoch % evaluate_every == 0 or epoch == epochs):
                # The same draws every time, so that differences are those of the prior.
                evaluated[epoch] = _finite(mean_elbo(held_out_key, held_out, prior), epoch)
    finally:
        reporter.finish()
    history = PriorHistory(tuple(elbos), tuple(evaluated), tuple(evaluated.values()))
    return TrainedPrior(prior, history)


@functools.partial(jax.jit, static_argnames="samples")
def mean_elbo(
    key: PRNGKeyArray, slices: Float[Array, "N h w"], prior: Any, samples: int = 1
) -> Float[Array, ""]:
    """Estimates the mean ELBO of slices, nats per slice.

    Args:
        key: PRNG key.
        slices: float[N, h, w].
        prior: latent-variable model, a pytree.
        samples: number of draws of z.
    """
    return -jnp.mean(negative_elbo(key, slices, prior, samples=samples))


@functools.partial(jax.jit, static_argnames=("total", "learning_rate"))
def _step(
    prior: Any,
    state: Any,
    slices: Float[Array, "N h w"],
    chosen: Int[Array, " B"],
    key: PRNGKeyArray,
    *,
    total: int,
    learning_rate: float,
) -> tuple[Any, Any, Float[Array, ""]]:
    """Takes one step; returns the prior, the optimiser's state and the ELBO before the step."""
    loss, gradient = jax.value_and_grad(lambda p: -mean_elbo(key, slices[chosen], p))(prior)
    updates, state = _optimiser(learning_rate, total).update(gradient, state)
    return optax.apply_updates(prior, updates), state, -loss


def _optimiser(learning_rate: float, total: int) -> optax.GradientTransformation:
    return optax.adam(optax.linear_schedule(learning_rate, 0.0, total))


def _check_usable(name: str, slices: Float[Array, "N h w"]) -> None:
    if not len(slices) or not bool(jnp.isfinite(slices).all()):
        fault = "hold numbers that are not finite" if len(slices) else "are empty"
        raise UserError(f"{name} {fault}; expected at least one slice of finite weights")


def _finite(elbo: Any, epoch: int) -> float:
    value = float(elbo)
    if not math.isfinite(value):
        raise UserError(
            f"the ELBO is {value} in epoch {epoch}: a variance underflows or the steps are too "
            "large; expected a larger floor or a smaller learning rate"
        )
    return value
