"""Training batch sizes that divide over devices; without JAX, for commands that only print."""

from __future__ import annotations

import math

from adaptive_nets.runtime.errors import UserError


def require_divisible_batch(
    batch_size: int, devices: int, *, accumulation: int = 1, flag: str = "--data.batch-size"
) -> None:
    """Raises a `UserError` unless a training batch divides evenly over devices.

    Args:
        batch_size: examples per optimiser step.
        devices: number of devices that share them.
        accumulation: number of gradient accumulation parts; the proposed sizes respect it.
        flag: name of the flag in the message.
    """
    if batch_size % devices == 0:
        return
    unit = math.lcm(devices, accumulation)
    below = batch_size // unit * unit
    sizes = f"{below} or {below + unit}" if below else f"{unit}"
    raise UserError(
        f"{flag} is {batch_size}, which does not divide over {devices} devices; "
        f"expected a multiple of {unit}, such as {sizes}"
    )
