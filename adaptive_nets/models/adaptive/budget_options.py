"""Budget of a call of a network of adaptive depth, as a shift of its halting logits."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from adaptive_nets.halting import BudgetCalibration, budget_shift, check_budget, image_dither
from adaptive_nets.runtime.errors import UserError

Shift = float | Float[Array, ""] | Float[Array, "N"]
"""δ, for all images or one per image."""


def resolve_shift(
    x: Float[Array, "N ..."],
    train: bool,
    mode: str | None,
    budget: Any,
    calibration: BudgetCalibration | None,
    halting_shift: Shift | None,
) -> Float[Array, "N"] | None:
    """Returns the shift of the halting logits of each image of a call; None for no shift.

    Args:
        x: images.
        train: whether the call is a training step.
        mode: mode of a probabilistic network; None for summed scores.
        budget: budget of the call, or None.
        calibration: its calibration.
        halting_shift: shift of the call, or None.

    Raises:
        UserError: there is a budget without a calibration, with a shift, in training, in a mode
            that it is not calibrated for, or outside the calibrated range; or the shift is neither
            a number nor float[N].
    """
    count = jnp.shape(x)[0]
    if budget is None:
        if halting_shift is None:
            return None
        shift = jnp.asarray(halting_shift, jnp.float32)
        if shift.shape not in ((), (count,)):
            raise UserError(
                f"halting_shift has shape {shift.shape}; expected one number, or ({count},), one "
                "per image"
            )
        return jnp.broadcast_to(shift, (count,))
    if calibration is None:
        raise UserError(
            f"budget is {budget!r}, but calibration is None; expected one from calibrate_budget"
        )
    if halting_shift is not None:
        raise UserError("budget and halting_shift are both given; expected one of them")
    if train or mode not in (None, "thresholded"):
        given = "train is True" if train else f"mode is {mode!r}"
        raise UserError(
            f"{given} with a budget; expected a call in evaluation, thresholded if probabilistic"
        )
    check_budget(calibration, budget, images=count)
    wanted = jnp.broadcast_to(jnp.asarray(budget, jnp.float32), (count,))
    return budget_shift(calibration, wanted, image_dither(x))
