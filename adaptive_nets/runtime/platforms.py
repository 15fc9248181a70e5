"""Platforms of JAX: an error of one line if the requested one is absent."""

from __future__ import annotations

import contextlib
import os
import sys

from adaptive_nets.runtime.errors import UserError

_VARIABLE = "JAX_PLATFORMS"


def check_requested_platform() -> None:
    """Raises a `UserError` if $JAX_PLATFORMS names a platform that is absent.

    Does nothing if it names none, or the CPU, which is always there. Otherwise the devices of JAX
    are used, so the processes of a run have to be connected before.
    """
    if os.environ.get(_VARIABLE, "") in ("", "cpu"):
        return
    import jax

    try:
        jax.devices()
    except Exception as error:
        raise absent_platform(error) or error from error


def absent_platform(error: Exception) -> UserError | None:
    """Returns the user's mistake behind an error: a platform in $JAX_PLATFORMS that is absent.

    JAX raises errors of several types for it, at the first use of a device.

    Args:
        error: error that ended a command.

    Returns:
        The mistake; None if the devices of JAX can be used, or JAX was not.
    """
    if "jax" not in sys.modules or isinstance(error, UserError):
        return None
    import jax
    from jax.extend.backend import backends

    try:
        jax.devices()
    except Exception:
        requested = jax.config.jax_platforms  # pyright: ignore[reportAttributeAccessIssue]
        named = os.environ.get(_VARIABLE)
        what = f"${_VARIABLE} is {named!r}" if named else f"the platform of JAX is {requested!r}"
        available = "cpu"
        # Devices of several processes are set up together, and the others may have ended.
        if not jax.distributed.is_initialized():
            # The process ends here, so its configuration may change.
            jax.config.update("jax_platforms", "")
            with contextlib.suppress(Exception):
                available = ", ".join(backends())
        return UserError(
            f"{what}, which cannot be used here; available: {available} (unset the variable, or "
            "install the extra and the driver of the device)"
        )
    return None
