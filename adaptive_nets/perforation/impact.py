"""Impact of output positions: first-order loss change if a position is zeroed [figurnov2016]."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adaptive_nets.models import logits_of
from adaptive_nets.perforation.find_layers import conv_layers
from adaptive_nets.perforation.layers import fingerprint
from adaptive_nets.perforation.network import PerforatedModel
from adaptive_nets.perforation.plan import PerforationPlan
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.training.losses import cross_entropy
from kernels.perforated_conv import CompactTensor

Batch = tuple[Float[Array, "N H W C"], Int[Array, " N"]]
Progress = Callable[[int, int | None], None]


def average_impact(
    model: Any,
    variables: Any,
    images: Float[Array, "M H W C"] | Iterable[Batch],
    labels: Int[Array, " M"] | None = None,
    *,
    plan: PerforationPlan | None = None,
    batch_size: int = 128,
    progress: Progress | None = None,
) -> dict[str, Float[np.ndarray, "H W"]]:
    """Computes B(x, y), the mean over images of Σ_t |∂L/∂V(x, y, t) · V(x, y, t)|, per convolution.

    V is the output of the convolution with bias, before ReLU; L is the cross-entropy of an image;
    dropout is off. In a perforated layer a computed position gets the impact of all its copies and
    other positions get 0, as in the paper's iterative impact.

    Args:
        model: the network.
        variables: its variables.
        images: float[M, H, W, C], preprocessed training images; or an iterable of (images, labels)
            batches.
        labels: int[M]; None if `images` are batches.
        plan: perforation plan; None for the unperforated network.
        batch_size: batch size for an array of images.
        progress: callback (images done, total or None if unknown).

    Returns:
        Name of every perforable convolution -> float64[H', W'].

    Raises:
        UserError: there are no images, or the plan is not for this network.
    """
    batches, total = _batches(images, labels, batch_size)
    sums: dict[str, np.ndarray] = {}
    step, seen = None, 0
    for x, y in batches:
        if step is None:
            step = jax.jit(_impact_step(model, variables, x.shape[1:], plan))
        for name, impact in step(variables, x, y).items():
            sums[name] = sums.get(name, 0.0) + np.asarray(impact, np.float64)
        seen += len(x)
        if progress is not None:
            progress(seen, total)
    if not seen:
        raise UserError("images is empty; expected at least one training image")
    return {name: impact / seen for name, impact in sums.items()}


def _batches(images: Any, labels: Any, batch_size: int) -> tuple[Iterable[Batch], int | None]:
    if labels is None:
        return images, None
    if batch_size < 1:
        raise UserError(f"batch_size is {batch_size}; expected at least 1")
    if len(images) != len(labels):
        raise UserError(f"labels has {len(labels)} entries; expected {len(images)}, one per image")
    starts = range(0, len(images), batch_size)
    parts = ((images[i : i + batch_size], labels[i : i + batch_size]) for i in starts)
    return parts, len(images)


def _impact_step(model, variables, image_shape, plan) -> Callable[[Any, Array, Array], Any]:
    layers = conv_layers(model, variables, image_shape)
    if plan is None:
        plan = PerforationPlan(fingerprint(layers), {})
    perforated = PerforatedModel(model, plan)
    perforated.check(variables, image_shape)
    names = {layer.name for layer in layers if layer.perforable}
    sizes = {layer.name: layer.output_size for layer in layers}

    def step(variables, x, y):
        def loss_of(probes):
            outputs = {}

            def tap(name, output):
                if name not in names:
                    return output
                if isinstance(output, CompactTensor):
                    outputs[name] = output
                    return output.replace(output.values + probes[name])
                outputs[name] = output
                return output + probes[name]

            logits = logits_of(perforated.apply_tapped(variables, x, tap, train=False))
            return jnp.sum(cross_entropy(logits, y)), outputs

        shapes = {}
        record = _record_shapes(shapes)
        jax.eval_shape(lambda: perforated.apply_tapped(variables, x, record, train=False))
        probes = {name: jnp.zeros(*shapes[name]) for name in shapes if name in names}
        gradients, outputs = jax.grad(loss_of, has_aux=True)(probes)
        impacts = {}
        for name, gradient in gradients.items():
            output = outputs[name]
            compact = isinstance(output, CompactTensor)
            product = gradient * (output.values if compact else output)
            impact = jnp.sum(jnp.abs(product).astype(jnp.float32), axis=(0, -1))
            if compact:
                everywhere = jnp.zeros(output.plan.size, jnp.float32)
                impact = everywhere.ravel().at[output.plan.positions].set(impact)
            impacts[name] = impact.reshape(sizes[name])
        return impacts

    return step


def _record_shapes(shapes: dict[str, Any]) -> Callable[[str, Any], Any]:
    """Returns a tap that records the shape and dtype of every convolution's output."""

    def tap(name, output):
        values = output.values if isinstance(output, CompactTensor) else output
        shapes[name] = values.shape, values.dtype
        return output

    return tap
