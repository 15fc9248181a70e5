"""Checks that a Pallas kernel can run on this machine with these inputs."""

from __future__ import annotations

import jax

from kernels._common import tile_conv
from kernels._common.geometry import Geometry
from kernels._common.target import require_platform

# Platform that each Pallas kernel is for, and the dtypes they take.
KERNEL_PLATFORMS = {"pallas_triton": "gpu", "mosaic_tpu": "tpu", "mosaic_gpu": "gpu"}
_KERNEL_DTYPES = ("float32", "bfloat16", "float16")


def require_kernel(name: str, x, geometry: Geometry) -> None:
    """Checks that a Pallas kernel can run here on these inputs.

    Args:
        name: of the kernel.
        x: the input, array or shape with dtype.
        geometry: of the convolution.

    Raises:
        NotImplementedError: it cannot; the message says what it needs.
    """
    if name == "mosaic_gpu":
        tile_conv.require(x, geometry)
        return
    require_platform(KERNEL_PLATFORMS[name], name)
    if jax.numpy.dtype(x.dtype).name not in _KERNEL_DTYPES:
        raise NotImplementedError(
            f"{name} takes {', '.join(_KERNEL_DTYPES)}; x has dtype {jax.numpy.dtype(x.dtype).name}"
        )
