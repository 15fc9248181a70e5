"""Target device of a kernel trace: the default device, or an abstract one."""

from __future__ import annotations

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """Device properties that a kernel depends on at trace time.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        device_kind: vendor name, such as "NVIDIA H100" or "TPU v5 lite".
    """

    platform: str
    device_kind: str


def current_target() -> Target:
    """Returns the abstract device of the current mesh if it has one, else the default device.

    An abstract device (`jax.sharding.use_abstract_mesh` over a mesh with an `AbstractDevice`)
    allows lowering and compiling for absent hardware.
    """
    abstract = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    if abstract is not None and abstract.platform is not None:
        return Target(_platform(abstract.platform), abstract.device_kind)
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(device, jax.Device):
        device = jax.devices(device)[0]
    return Target(_platform(device.platform), device.device_kind)


def require_platform(platform: str, what: str) -> Target:
    """Returns the current target if it is of the given platform.

    Args:
        platform: "gpu" or "tpu".
        what: name of the kernel, for the message.

    Raises:
        NotImplementedError: the target is of another platform.
    """
    target = current_target()
    if target.platform != platform:
        raise NotImplementedError(
            f"{what} needs a {platform.upper()}; this process computes on {target.device_kind!r} "
            f"({target.platform})"
        )
    return target


def _platform(name: str) -> str:
    return "gpu" if name in ("cuda", "rocm") else name
