"""Public function `perforated_conv`: convolution at the kept positions of a static mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float

from kernels._common import dispatch
from kernels._common.arrays import as_arrays, vary_alike
from kernels._common.dispatch import Choice, Requested
from kernels._common.epilogue import as_bias, check_activation
from kernels._common.geometry import Geometry, Padding, make_geometry
from kernels._common.requirements import KERNEL_PLATFORMS
from kernels._common.target import current_target
from kernels.perforated_conv import cost, pallas, reference, xla
from kernels.perforated_conv.compact import CompactTensor, Fill, fill_positions
from kernels.perforated_conv.plan import Plan, make_plan

IMPLEMENTATIONS = ("xla", "dense", "reference", *KERNEL_PLATFORMS)

_PREFERRED = {
    "gpu": ("pallas_triton", "mosaic_gpu", "xla", "dense"),
    "tpu": ("mosaic_tpu", "xla", "dense"),
}
_FILLS = ("nearest", "zeros", "compact")

Compute = Callable[[Array, Array], Float[Array, "N P O"]]


def perforated_conv(
    x: Float[Array, "N H W C"] | CompactTensor,
    w: Float[Array, "KH KW Cg O"],
    mask: np.ndarray,
    *,
    bias: Float[Array, " O"] | None = None,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
    fill: Fill = "nearest",
    nearest: np.ndarray | None = None,
    activation: Literal["relu"] | None = None,
    implementation: Requested = None,
) -> Array:
    """Computes a convolution at kept positions; every other position copies the nearest one.

    ``y[n, p] = act(conv(x, w)[n, l(p)] + bias)`` with l(p) the kept position nearest to p
    [figurnov2016, eq. 2]. Differentiable in x, w and bias, in forward and reverse mode and any
    number of times; the cotangent of a copy is added to that of its source. The batch may be
    symbolic (`jax.export`); implementations are then chosen as for one image.

    Args:
        x: float[N, H, W, C] in float32, bfloat16 or float16, or a `CompactTensor`, which is read
            through its nearest-kept map.
        w: float[KH, KW, C / groups, O] in x's dtype. Sums are float32.
        mask: bool[H', W'], concrete and the same for all images; True where the output is computed.
        bias: float[O].
        strides: (vertical, horizontal), or one number for both.
        padding: "SAME", "VALID", ((top, bottom), (left, right)), or one number for all sides.
        groups: number of channel groups.
        fill: values of the other positions: "nearest" copies the nearest kept one, "zeros" writes
            zeros, "compact" returns kept positions only.
        nearest: int[H', W'], flat index of the kept position that each position copies, its own
            at a kept position; by default computed with ties broken by a fixed seed.
        activation: "relu" or None, applied to computed positions only.
        implementation: None chooses the fastest known and may fall back, also to the dense
            convolution; a name of `IMPLEMENTATIONS` selects that one or raises; a sequence is
            tried in order. `choose` returns what None selects.

    Returns:
        float[N, H', W', O] in x's dtype; float[N, P, O] with fill="compact", kept positions in
        row-major order.

    Raises:
        ValueError: an argument is invalid; the message names it.
        NotImplementedError: a named implementation does not support the inputs or the device.

    Example:
        >>> import jax.numpy as jnp
        >>> mask = np.zeros((4, 4), bool)
        >>> mask[::2, ::2] = True
        >>> x, w = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 16))
        >>> perforated_conv(x, w, mask).shape
        (1, 4, 4, 16)
        >>> perforated_conv(x, w, mask, fill="compact").shape
        (1, 4, 16)
    """
    if not isinstance(fill, str) or fill not in _FILLS:
        raise ValueError(f"fill is {fill!r}; expected one of {', '.join(_FILLS)}")
    check_activation(activation)
    x, w = vary_alike(*_as_operands(x, w))
    values = x.values if isinstance(x, CompactTensor) else x
    _, plan, compute = _resolve(x, w, mask, strides, padding, groups, fill, nearest, implementation)
    y = compute(values, w)
    if bias is not None:
        bias = as_bias(bias, w.shape[3])
        y = y + bias.astype(y.dtype).reshape(1, 1, -1)
    if activation:
        y = jax.nn.relu(y)
    return fill_positions(y, plan, fill)


def choose(
    x: Float[Array, "N H W C"] | jax.ShapeDtypeStruct | CompactTensor,
    w: Float[Array, "KH KW Cg O"] | jax.ShapeDtypeStruct,
    mask: np.ndarray,
    *,
    strides: int | Sequence[int] = (1, 1),
    padding: Padding = "SAME",
    groups: int = 1,
    fill: Fill = "nearest",
    implementation: Requested = None,
) -> Choice:
    """Returns what `perforated_conv` runs with these arguments, for records; computes nothing."""
    x, w = _as_operands(x, w)
    return _resolve(x, w, mask, strides, padding, groups, fill, None, implementation)[0]


def _as_operands(x, w) -> tuple[Any, Any]:
    """Converts NumPy inputs to JAX arrays."""
    if isinstance(x, CompactTensor):
        return x, as_arrays(w=w)[0]
    x, w = as_arrays(x=x, w=w)
    return x, w


def _resolve(
    x, w, mask, strides, padding, groups, fill, nearest, implementation
) -> tuple[Choice, Plan, Compute]:
    if isinstance(x, CompactTensor):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        geometry = make_geometry(shape, w, strides=strides, padding=padding, groups=groups)
        plan = make_plan(mask, nearest, geometry.output_size)
        return _resolve_compact(x, geometry, plan, implementation)
    geometry = make_geometry(x, w, strides=strides, padding=padding, groups=groups)
    plan = make_plan(mask, nearest, geometry.output_size)
    platform = current_target().platform
    path = xla.cheapest_path(geometry, plan)
    preferred = _PREFERRED.get(platform) or _cpu_order(geometry, plan, fill)
    if plan.kept == geometry.positions:
        preferred = ("dense",)

    def bind(function, *more):
        return lambda: lambda x, w: function(x, w, geometry, plan, *more)

    choice, compute = dispatch.first_supported(
        "perforated_conv",
        implementation,
        {
            "xla": bind(xla.compact, path),
            "dense": bind(xla.compact, "dense"),
            "reference": bind(reference.forward),
            **{
                name: lambda n=name: pallas.bind(n, x, w, geometry, plan)
                for name in KERNEL_PLATFORMS
            },
        },
        preferred,
        execution_paths={"xla": path},
    )
    if choice.implementation == "xla":
        choice = dataclasses.replace(choice, detail=path)
    return choice, plan, compute


def _cpu_order(geometry: Geometry, plan: Plan, fill: Fill) -> tuple[str, ...]:
    costs = [cost.gathered(geometry, plan), cost.strided(geometry, plan)]
    cheapest = min(c for c in costs if c is not None)
    if fill != "compact":
        cheapest += cost.fill(geometry)
    return ("xla", "dense") if cheapest < cost.dense(geometry) else ("dense", "xla")


def _resolve_compact(
    x: CompactTensor, geometry: Geometry, plan: Plan, implementation: Requested
) -> tuple[Choice, Plan, Compute]:
    source = x.plan

    def read_compact():
        return lambda values, w: xla.compact_to_compact(values, w, geometry, source, plan)

    def fill_first(function):
        def compute(values, w):
            return function(fill_positions(values, source, "nearest"), w, geometry, plan)

        return lambda: compute

    def refuse():
        raise NotImplementedError("does not support compact inputs; pass x.filled()")

    choice, compute = dispatch.first_supported(
        "perforated_conv",
        implementation,
        {
            "xla": read_compact,
            "dense": fill_first(xla.dense_compact),
            "reference": fill_first(reference.forward),
            **dict.fromkeys(KERNEL_PLATFORMS, refuse),
        },
        ("xla",),
        execution_paths={"xla": "compact input"},
    )
    return choice, plan, compute
