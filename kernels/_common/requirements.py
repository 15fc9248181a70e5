"""Checks that a Pallas kernel supports the target device and the inputs."""

from __future__ import annotations

import jax

from kernels._common import tile_conv
from kernels._common.geometry import Geometry, is_static
from kernels._common.target import require_platform

# Platform of each Pallas kernel, and the dtypes of the gather kernels.
KERNEL_PLATFORMS = {"pallas_triton": "gpu", "mosaic_tpu": "tpu", "mosaic_gpu": "gpu"}
_KERNEL_DTYPES = ("float32", "bfloat16", "float16")


def require_kernel(name: str, x, geometry: Geometry) -> None:
    """Checks that a Pallas kernel supports the target device and the inputs.

    Args:
        name: name of the implementation.
        x: input, array or `ShapeDtypeStruct`.
        geometry: geometry of the convolution.

    Raises:
        NotImplementedError: it does not; the message states the requirement.
    """
    if not is_static(geometry.batch):
        raise NotImplementedError(f"{name} needs a known batch size; got {geometry.batch}")
    if name == "mosaic_gpu":
        tile_conv.require(x, geometry)
        return
    require_platform(KERNEL_PLATFORMS[name], name)
    if jax.numpy.dtype(x.dtype).name not in _KERNEL_DTYPES:
        raise NotImplementedError(
            f"{name} takes {', '.join(_KERNEL_DTYPES)}; x has dtype {jax.numpy.dtype(x.dtype).name}"
        )
