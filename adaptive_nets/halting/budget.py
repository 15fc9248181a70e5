"""One trained network at any budget: a run-time shift of the halting logits.

Adding δ to every halting logit moves the whole network along its trade-off: at δ → ∞ each block
stops after its first unit, at δ → −∞ all units run. For thresholded probabilities this is the
threshold 1 − σ(δ) on h; for summed scores it also moves the weights of the units. A calibration
measures mean FLOPs at some shifts on unlabelled images. A budget between two measured costs is met
by giving one part of the images the lower shift and the other part the higher one, so the mean is
right even where no single shift has that cost. The part of an image is a hash of its pixels:
results depend on neither its batch nor a random stream.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Float

from adaptive_nets.halting.arguments import as_array
from adaptive_nets.runtime.errors import UserError

SHIFT_LIMIT = 1e4
"""Shift at which a sigmoid is 0 or 1 in float32 for every trained head."""
SHARE_LIMIT = 2.0
"""Budgets up to this are shares of the plain network's FLOPs, larger ones are FLOPs."""

# Rounding of a budget against the ends of the calibrated range.
_SLACK = 1e-6


class BudgetCalibration(NamedTuple):
    """Measured costs of a network: a table from FLOPs to shifts, a pytree of arrays.

    Attributes:
        shifts: float32[K], δ, decreasing.
        flops: float32[K], mean FLOPs per image at each shift, strictly increasing. The first is the
            cost of the first units alone, the last that of the whole network.
        plain_flops: float32[], FLOPs per image of the plain network, without halting heads.
    """

    shifts: Float[Array, "K"]
    flops: Float[Array, "K"]
    plain_flops: Float[Array, ""]


def shift_logits(
    logits: Float[Array, "N ..."], shift: float | Float[Array, ""] | Float[Array, "N"] | None
) -> Float[Array, "N ..."]:
    """Adds the shift δ to halting logits.

    Args:
        logits: float[N, ...], outputs of a halting head.
        shift: δ, one for all images or float[N], one per image; None leaves logits unchanged.

    Returns:
        float[N, ...], in the dtype of the logits.

    Raises:
        UserError: the shift is neither a scalar nor float[N].
    """
    if shift is None:
        return logits
    logits, delta = as_array("logits", logits), as_array("halting_shift", shift)
    if delta.shape not in ((), logits.shape[:1]):
        raise UserError(
            f"halting_shift has shape {delta.shape}; expected one number, or {logits.shape[:1]}, "
            "one per image"
        )
    if delta.ndim:
        delta = jnp.expand_dims(delta, tuple(range(1, logits.ndim)))
    return logits + delta.astype(logits.dtype)


def budget_shift(
    calibration: BudgetCalibration,
    budget: float | Float[Array, "..."],
    dither: float | Float[Array, "..."] = 0.5,
) -> Float[Array, "..."]:
    """Computes the shift δ that meets a budget; may be compiled, with the budget as an array.

    The shift does not increase with the budget for a fixed `dither`. Budgets outside the calibrated
    range get its nearest end; `check_budget` refuses them.

    Args:
        calibration: from `calibrate_shifts`.
        budget: FLOPs per image, or at most `SHARE_LIMIT`: share of the plain network's FLOPs.
        dither: number in [0, 1), uniform over images, from `image_dither`. Between the costs of two
            measured shifts, the images with the smaller numbers get the more expensive one.

    Returns:
        float32, of the broadcast shape of `budget` and `dither`.

    Example:
        >>> table = BudgetCalibration(np.array([9.0, 0.0, -9.0]), np.array([2.0, 6.0, 8.0]), 10.0)
        >>> budget_shift(table, np.array([0.2, 0.5, 0.7]), 0.4)
        Array([ 9.,  0., -9.], dtype=float32)
    """
    shifts, flops, plain = (jnp.asarray(a, jnp.float32) for a in calibration)
    wanted, dither = (jnp.asarray(a, jnp.float32) for a in (budget, dither))
    shape = jnp.broadcast_shapes(wanted.shape, dither.shape)
    wanted, dither = jnp.broadcast_to(wanted, shape), jnp.broadcast_to(dither, shape)
    wanted = jnp.where(wanted <= SHARE_LIMIT, wanted * plain, wanted)
    last = shifts.shape[0] - 1
    low = jnp.clip(jnp.searchsorted(flops, wanted, side="right") - 1, 0, max(last - 1, 0))
    high = jnp.minimum(low + 1, last)
    width = flops[high] - flops[low]
    part = jnp.where(width > 0, (wanted - flops[low]) / jnp.where(width > 0, width, 1.0), 0.0)
    return jnp.where(dither < part, shifts[high], shifts[low])


def check_budget(calibration: BudgetCalibration, budget: Any, *, images: int | None = None) -> None:
    """Checks that budgets are within the calibrated range; traced ones pass unchecked.

    Args:
        calibration: from `calibrate_shifts`.
        budget: see `budget_shift`; one number, or one per image.
        images: number of images N, if known.

    Raises:
        UserError: a budget is no number, below the cost of the first units or above that of the
            whole network, or the number of budgets is not N.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((budget, calibration))):
        return
    try:
        values = np.asarray(budget, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"budget is {budget!r}; expected a number or one per image") from None
    if values.ndim > 1 or (images is not None and values.shape not in ((), (images,))):
        expected = "[N]" if images is None else f"({images},)"
        raise UserError(
            f"budget has shape {values.shape}; expected one number, or {expected}, one per image"
        )
    plain = float(calibration.plain_flops)
    least, most = (float(np.asarray(calibration.flops)[i]) for i in (0, -1))
    wanted = np.where(values <= SHARE_LIMIT, values * plain, values)
    inside = (wanted >= least * (1 - _SLACK)) & (wanted <= most * (1 + _SLACK))
    if inside.all():
        return
    wrong = float(values[~inside].flat[0] if values.ndim else values)
    amount = f"{wrong:.0f} FLOPs per image"
    if wrong <= SHARE_LIMIT:
        amount = f"{wrong:g}, {wrong * plain:.0f} FLOPs per image"
    raise UserError(
        f"budget is {amount}; expected from {least:.0f} FLOPs, a share of "
        f"{math.ceil(1e4 * least / plain) / 1e4:g}, which the first units cost, to {most:.0f}, a "
        f"share of {math.floor(1e4 * most / plain) / 1e4:g}, the whole network"
    )


def image_dither(images: Array) -> Float[Array, "N"]:
    """Hashes images to numbers that are uniform over images, for `budget_shift`.

    Integer arithmetic on the bits of float32 pixels: every program gives the same numbers, and an
    image gives the same number in every batch.

    Args:
        images: [N, ...], of any number type.

    Returns:
        float32[N] in [0, 1).
    """
    images = as_array("images", images)
    count = images.shape[0]
    bits = lax.bitcast_convert_type(images.astype(jnp.float32), jnp.uint32)
    bits = bits.reshape(count, math.prod(images.shape[1:]))
    place = lax.broadcasted_iota(jnp.uint32, bits.shape, 1)
    bits = _scramble(bits ^ (place * np.uint32(0x9E3779B9)))
    total = _scramble(jnp.sum(bits, axis=1, dtype=jnp.uint32))
    return (total >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def _scramble(bits: Array) -> Array:
    """Applies the finaliser of a 32-bit hash: each bit of the input changes half of the output."""
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)
