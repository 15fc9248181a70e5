"""One optimiser step, as pure functions that know nothing of files or screens."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from adaptive_nets.data.device import Augmentation, DeviceSplit, take_training_batch
from adaptive_nets.models import auxiliary_logits_of, logits_of
from adaptive_nets.training import metrics as metrics_lib
from adaptive_nets.training.conv_gradient import intercept_conv_gradients
from adaptive_nets.training.losses import cross_entropy, is_error
from adaptive_nets.training.metrics import Mean
from adaptive_nets.training.state import HEALTHY, TrainState

# Purposes of random keys; a number, once given, stays.
INIT, AUGMENT, NOISE, SHUFFLE = range(4)

# Random streams that a network may draw from in training.
STREAMS = ("dropout", "noise", "gumbel", "drop_path", "halting")

Batch = Mapping[str, Array]
Objective = Callable[[Any, Batch, Any, Int[Array, ""]], tuple[Float[Array, ""], dict[str, Mean]]]
"""(model output, batch, params, step) -> (loss to minimise, metrics)."""

AfterStep = Callable[[Any, Any, Batch, Int[Array, ""]], Any]
"""(other collections, model output, batch, step) -> other collections, for the next step."""


def classification(
    *,
    label_smoothing: float = 0.0,
    auxiliary_weight: float = 0.3,
    penalty: Callable[[Any, Array], dict[str, Array]] | None = None,
) -> Objective:
    """Mean cross-entropy, plus the values of `penalty(params, step)`, each reported by name.

    The cross-entropy of every auxiliary classifier that the network has is added with a weight, and
    reported as ``auxiliary_nll_1`` and so on, from the input onwards.

    Args:
        label_smoothing: share of the target spread over all classes, of auxiliary targets too.
        auxiliary_weight: of auxiliary classifiers; 0.3 in szegedy2014, 0.4 in common recipes of v3.
        penalty: named scalars to add to the loss, or None.
    """

    def objective(output, batch, params, step):
        logits, labels = logits_of(output), batch["label"]
        losses = cross_entropy(logits, labels, label_smoothing=label_smoothing)
        loss = jnp.mean(losses)
        metrics = {"nll": Mean.of(losses), "error": Mean.of(is_error(logits, labels))}
        for i, auxiliary in enumerate(auxiliary_logits_of(output), start=1):
            losses = cross_entropy(auxiliary, labels, label_smoothing=label_smoothing)
            loss += auxiliary_weight * jnp.mean(losses)
            metrics[f"auxiliary_nll_{i}"] = Mean.of(losses)
        for name, value in (penalty(params, step) if penalty else {}).items():
            loss += value
            metrics[name] = Mean.of(value)
        return loss, {"loss": Mean.of(loss), **metrics}

    return objective


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """What a step needs to know besides the network and the optimiser.

    Attributes:
        batch_size: global batch size B.
        accumulation: number of parts the batch is processed in.
        ema_decay: decay of the moving average; 0 for none.
        augmentation: what happens to training images.
        batch_sharding: how batches lie on the devices, or None on a single one.
    """

    batch_size: int
    accumulation: int = 1
    ema_decay: float = 0.0
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    batch_sharding: NamedSharding | None = None


def init_state(
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    objective: Objective,
    settings: StepSettings,
    *,
    rng: Array,
    image_shape: tuple[int, int, int],
    start: Callable[[Any, Any], tuple[Any, Any]] | None = None,
) -> TrainState:
    """Makes the first state; call it under `jit` with output shardings.

    Args:
        model: the network.
        optimiser: its optimiser.
        objective: loss and metrics; only its shapes are used here.
        settings: of the step.
        rng: data of the run's base key, uint32[2].
        image_shape: (H, W, C).
        start: see `adaptive_nets.training.setup.Task`.
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(rng), INIT)
    names: tuple[str, ...] = ("params", *STREAMS)
    keys: dict[str, Any] = dict(zip(names, jax.random.split(key, len(names)), strict=True))
    image = jnp.zeros((1, *image_shape), jnp.float32)
    variables = dict(model.init(keys, image, train=False))
    params = variables.pop("params")
    if start is not None:
        params, variables = start(params, variables)

    def one_batch():
        batch = {"image": image, "label": jnp.zeros((1,), jnp.int32)}
        # As in training, where there may be more to report, auxiliary classifiers for instance.
        output, _ = model.apply(
            {"params": params, **variables},
            image,
            train=True,
            rngs=keys,
            mutable=list(variables),
        )
        return objective(output, batch, params, jnp.int32(0))[1]

    metrics = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(one_batch)
    )
    return TrainState(
        step=jnp.int32(0),
        rng=rng,
        params=params,
        model_state=variables,
        opt_state=optimiser.init(params),
        ema=jax.tree.map(jnp.copy, params) if settings.ema_decay else {},
        metrics=metrics,
        failed_step=jnp.int32(HEALTHY),
    )


def make_train_step(
    model: nn.Module,
    optimiser: optax.GradientTransformation,
    objective: Objective,
    settings: StepSettings,
    *,
    after: AfterStep | None = None,
    take: Callable[..., Batch] | None = None,
) -> Callable[..., TrainState]:
    """Builds the step (state, training set, this epoch's order) -> state.

    The batch is gathered and augmented inside, so one dispatch does it all and nothing crosses from
    the host.

    Args:
        model: the network.
        optimiser: its optimiser.
        objective: loss and metrics.
        settings: of the step.
        after: what becomes of the network's other collections once the output is known.
        take: makes the batch of what follows the state in the step's arguments; where not given,
            the next examples of the training set in this epoch's order.
    """
    sharding = settings.batch_sharding
    alone = sharding is None or sharding.mesh.size == 1
    quick = alone and jax.default_backend() == "cpu"

    def loss_fn(params, model_state, batch, step, keys):
        with nn.intercept_methods(intercept_conv_gradients) if quick else contextlib.nullcontext():
            output, mutated = model.apply(
                {"params": params, **model_state},
                batch["image"],
                train=True,
                rngs=keys,
                mutable=list(model_state),
            )
        loss, metrics = objective(output, batch, params, step)
        kept = dict(mutated)
        if after is not None:
            kept = dict(after(kept, output, batch, step))
        return loss, (kept, metrics)

    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def stream_keys(key):
        return dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))

    def full_batch_gradients(state, batch, key):
        (loss, (model_state, metrics)), grads = gradient(
            state.params, state.model_state, batch, state.step, stream_keys(key)
        )
        return loss, model_state, metrics, grads

    def accumulated_gradients(state, batch, key):
        parts = settings.accumulation

        # Part i takes every parts-th example from i on, so that each device works on its own
        # examples.
        def divide(leaf):
            return jnp.moveaxis(leaf.reshape(-1, parts, *leaf.shape[1:]), 1, 0)

        def body(carry, part):
            model_state, metrics, total, grads = carry
            index, batch_part = part
            (loss, (model_state, new)), new_grads = gradient(
                state.params, model_state, batch_part, state.step,
                stream_keys(jax.random.fold_in(key, index)),
            )  # fmt: skip
            grads = jax.tree.map(lambda a, b: a + b / parts, grads, new_grads)
            return (model_state, metrics_lib.merge(metrics, new), total + loss / parts, grads), None

        zeros = jax.tree.map(jnp.zeros_like, (state.metrics, jnp.float32(0), state.params))
        carry = (state.model_state, *zeros)
        batches = jax.tree.map(divide, dict(batch))
        (model_state, metrics, loss, grads), _ = lax.scan(body, carry, (jnp.arange(parts), batches))
        return loss, model_state, metrics, grads

    compute = full_batch_gradients if settings.accumulation == 1 else accumulated_gradients

    def take_resident(state: TrainState, data: DeviceSplit, order: Array) -> Batch:
        return take_training_batch(
            data,
            order,
            state.step,
            batch_size=settings.batch_size,
            key=state.key(AUGMENT),
            augmentation=settings.augmentation,
            sharding=settings.batch_sharding,
        )

    def train_step(state: TrainState, *where: Any) -> TrainState:
        batch = take(*where) if take else take_resident(state, *where)
        loss, model_state, metrics, grads = compute(state, batch, state.key(NOISE))
        updates, opt_state = optimiser.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if settings.ema_decay:
            ema = optax.incremental_update(params, ema, 1.0 - settings.ema_decay)
        # Only noted here; the host looks at it now and then. Keeping the old state instead would
        # cost one more pass over all parameters and moments in every step.
        fails_now = (state.failed_step == HEALTHY) & ~jnp.isfinite(loss)
        return dataclasses.replace(
            state,
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
            ema=ema,
            metrics=metrics_lib.merge(state.metrics, metrics),
            failed_step=jnp.where(fails_now, state.step, state.failed_step),
        )

    return train_step
