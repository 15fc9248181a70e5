"""The machine a kernel is traced for: the local default device, or an abstract one."""

from __future__ import annotations

import dataclasses

import jax


@dataclasses.dataclass(frozen=True)
class Target:
    """What a kernel must know about its machine before anything is compiled.

    Attributes:
        platform: "cpu", "gpu" or "tpu".
        device_kind: the maker's name, e.g. "NVIDIA H100" or "TPU v5 lite".
    """

    platform: str
    device_kind: str


def current_target() -> Target:
    """The abstract device of the current mesh if it names one, else the default device.

    An abstract device (`jax.sharding.use_abstract_mesh` over a mesh with an `AbstractDevice`) is
    how code is lowered or compiled for a machine that is not there.
    """
    abstract = getattr(jax.sharding.get_abstract_mesh(), "abstract_device", None)
    if abstract is not None and abstract.platform is not None:
        return Target(_platform(abstract.platform), abstract.device_kind)
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(device, jax.Device):
        device = jax.devices(device)[0]
    return Target(_platform(device.platform), device.device_kind)


def require_platform(platform: str, what: str) -> Target:
    """The current target.

    Raises:
        NotImplementedError: it is not of this platform.
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
