"""Residual unit at the active positions of a run-time mask; its inner maps are never written whole.

The unit of spatially adaptive computation time [figurnov2017]: a chain of convolutions with ReLUs
between them, added to the input at active positions only. Each convolution is computed where the
next one reads it: at the mask, dilated by the windows that follow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from kernels._common import dispatch
from kernels._common.arrays import as_arrays, describe, vary_alike
from kernels._common.dispatch import Choice, Requested
from kernels._common.geometry import is_static
from kernels.masked_unit import cost, reference, xla
from kernels.masked_unit.chain import BlockState, Chain
from kernels.masked_unit.xla import ExecutionPath

IMPLEMENTATIONS = ("xla", "reference")

Compute = Callable[
    [BlockState, Bool[Array, "N H W"], Chain, Float[Array, "N H W"] | None], BlockState
]


def masked_unit(
    x: Float[Array, "N H W C"],
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    biases: Sequence[Float[Array, " O"] | None] | None = None,
    *,
    scale: Float[Array, " C"] | None = None,
    shift: Float[Array, " C"] | None = None,
    negative_slope: float = 0.0,
    activates_sum: bool = False,
    execution_path: ExecutionPath | None = None,
    implementation: Requested = None,
) -> Float[Array, "N H W C"]:
    """Adds a residual function to x at active positions: ``x + mask · f(x)``, or ``act`` of that.

    ``f(x) = conv_L(act(... act(conv_1(pre(x)) + b_1) ...)) + b_L``, and ``pre(x) = act(x·scale +
    shift)`` if a scale or a shift is given (the normalisation of a pre-activation unit), else
    ``pre(x) = x`` [figurnov2017]. Differentiable in all arrays but the mask, in forward and reverse
    mode and any number of times; derivatives are computed at all positions. A new mask of the same
    shape runs the same program. The batch may be symbolic (`jax.export`).

    Args:
        x: float[N, H, W, C]; an empty batch gives an empty output.
        mask: bool[N, H, W], a run-time array. If no position is active, nothing is computed.
        kernels: HWIO weights with odd windows, padding SAME and stride 1; the last one has C
            outputs. (1x1, 3x3, 1x1) is a bottleneck, (3x3, 3x3) a basic unit.
        biases: float[O] or None for each kernel; None for no biases.
        scale: float[C].
        shift: float[C].
        negative_slope: slope of act for negative arguments; 0 is ReLU.
        activates_sum: whether the output is act(x + f(x)) at active positions, as in the units of
            [he2015], and x elsewhere.
        execution_path: of "xla": "sparse" computes listed positions, "dense" all of them; None
            takes the dense path at run time if so many positions are active that it is faster.
        implementation: None chooses and may fall back; a name of `IMPLEMENTATIONS` means that one
            or an error; a sequence is tried in order.

    Returns:
        float[N, H, W, C] in x's dtype.

    Raises:
        ValueError: an argument does not fit; the message names it.
        NotImplementedError: a named implementation cannot run these arguments.

    Example:
        >>> x, w = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 8))
        >>> mask = jnp.zeros((1, 4, 4), bool).at[0, 1, 2].set(True)
        >>> y = masked_unit(x, mask, (w, w))
        >>> int((y != x).any(-1).sum())
        1
    """
    return masked_unit_with_sums(
        BlockState(x),
        mask,
        kernels,
        biases,
        scale=scale,
        shift=shift,
        negative_slope=negative_slope,
        activates_sum=activates_sum,
        execution_path=execution_path,
        implementation=implementation,
    ).x


def masked_unit_with_sums(
    state: BlockState,
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    biases: Sequence[Float[Array, " O"] | None] | None = None,
    *,
    share: Float[Array, "N H W"] | None = None,
    scale: Float[Array, " C"] | None = None,
    shift: Float[Array, " C"] | None = None,
    negative_slope: float = 0.0,
    activates_sum: bool = False,
    execution_path: ExecutionPath | None = None,
    implementation: Requested = None,
) -> BlockState:
    """Runs `masked_unit` and updates the weighted total and the sums of its block.

    Adds ``share · (y − x)`` to the total, where y is the unit's output, and the sum of ``y − x``
    over positions to the sums. If the total starts as the first state and the share is the weight
    left before the unit, the total is the weighted sum of all states.

    Args:
        state: state before the unit; entries that are None stay None.
        mask: as of `masked_unit`.
        kernels: as of `masked_unit`.
        biases: as of `masked_unit`.
        share: float[N, H, W], share of the residual in the total; required with a total.
        scale: as of `masked_unit`.
        shift: as of `masked_unit`.
        negative_slope: as of `masked_unit`.
        activates_sum: as of `masked_unit`.
        execution_path: as of `masked_unit`.
        implementation: as of `masked_unit`.

    Returns:
        The state after the unit.

    Raises:
        ValueError: an argument does not fit; the message names it.
        NotImplementedError: a named implementation cannot run these arguments.
    """
    state, mask, chain, share = _as_operands(
        state, mask, (kernels, biases, scale, shift), (negative_slope, activates_sum), share
    )
    _check(state, mask, chain, share)
    _, compute = _resolve(mask, chain, execution_path, implementation)
    return compute(state, mask, chain, share)


def choose(
    x: Float[Array, "N H W C"],
    mask: Bool[Array, "N H W"],
    kernels: Sequence[Float[Array, "KH KW I O"]],
    *,
    execution_path: ExecutionPath | None = None,
    implementation: Requested = None,
) -> Choice:
    """Returns the implementation that `masked_unit` runs with these arguments; computes nothing.

    Arrays may be `jax.ShapeDtypeStruct`.
    """
    state, mask, chain, _ = _as_operands(
        BlockState(x), mask, (kernels, None, None, None), (0.0, False), None
    )
    _check(state, mask, chain, None)
    return _resolve(mask, chain, execution_path, implementation)[0]


def _as_operands(
    state: BlockState, mask: Any, parameters: tuple[Any, ...], form: tuple[Any, bool], share: Any
) -> tuple[BlockState, Any, Chain, Any]:
    """Converts NumPy arguments to JAX arrays that vary over the same mesh axes."""
    kernels, biases, scale, shift = parameters
    kernels = _sequence("kernels", kernels)
    biases = (None,) * len(kernels) if biases is None else _sequence("biases", biases)
    if len(biases) != len(kernels) or not kernels:
        raise ValueError(
            f"{len(biases)} biases for {len(kernels)} kernels; expected one for each, and at least "
            "one kernel"
        )
    named = {f"kernels[{i}]": w for i, w in enumerate(kernels)}
    named |= {f"biases[{i}]": bias for i, bias in enumerate(biases)}
    named |= {"x": state.x, "total": state.total, "sums": state.sums, "mask": mask}
    named |= {"scale": scale, "shift": shift, "share": share}
    given = {name: value for name, value in named.items() if value is not None}
    arrays = dict(zip(given, as_arrays(**given), strict=True))
    if not any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays.values()):
        (arrays,) = vary_alike(arrays)
    state = BlockState(arrays["x"], arrays.get("total"), arrays.get("sums"))
    chain = Chain(
        tuple(arrays[f"kernels[{i}]"] for i in range(len(kernels))),
        tuple(arrays.get(f"biases[{i}]") for i in range(len(kernels))),
        arrays.get("scale"),
        arrays.get("shift"),
        _slope(form[0]),
        bool(form[1]),
    )
    return state, arrays["mask"], chain, arrays.get("share")


def _sequence(name: str, values: Any) -> tuple[Any, ...]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} is {describe(values)}; expected a list or tuple of arrays")
    return tuple(values)


def _slope(negative_slope: Any) -> float:
    try:
        return float(negative_slope)
    except (TypeError, ValueError):
        raise ValueError(f"negative_slope is {negative_slope!r}; expected a number") from None


def _resolve(
    mask, chain: Chain, path: ExecutionPath | None, implementation: Requested
) -> tuple[Choice, Compute]:
    if path is not None and path not in get_args(ExecutionPath):
        raise ValueError(f"execution_path is {path!r}; expected None, 'sparse' or 'dense'")

    def run_xla(state, mask, chain, share) -> BlockState:
        return xla.forward(state, mask, chain, share, path)

    def bind_reference() -> Compute:
        if path is not None:
            raise NotImplementedError(f"execution_path is {path!r}, which is for xla")
        return reference.forward

    choice, compute = dispatch.first_supported(
        "masked_unit",
        implementation,
        {
            "xla": lambda: run_xla,
            "reference": bind_reference,
        },
        ("xla",),
        execution_paths={"xla": path or "sparse or dense"},
    )
    if choice.implementation == "xla" and path is None and is_static(mask.size):
        limit = cost.limit(chain.kernels, mask.size)
        choice = dataclasses.replace(
            choice, detail=f"sparse up to {limit} of {mask.size} positions, dense beyond"
        )
    return choice, compute


def _check(state: BlockState, mask: Array, chain: Chain, share: Array | None) -> None:
    if len(state.x.shape) != 4:
        raise ValueError(f"x has shape {state.x.shape}; expected four axes [N, H, W, C]")
    if not jnp.issubdtype(state.x.dtype, jnp.floating):
        raise ValueError(f"x has dtype {state.x.dtype}; expected a floating-point dtype")
    size, channels = tuple(state.x.shape[:3]), state.x.shape[3]
    if not channels:
        raise ValueError(f"x has shape {state.x.shape}; expected at least one channel")
    if tuple(mask.shape) != size or mask.dtype != jnp.bool_:
        raise ValueError(f"mask is {mask.dtype}{list(mask.shape)}; expected bool{list(size)}")
    for i, (w, bias) in enumerate(zip(chain.kernels, chain.biases, strict=True)):
        odd = len(w.shape) == 4 and w.shape[0] % 2 and w.shape[1] % 2
        if not odd or w.shape[2] != channels or not w.shape[3]:
            raise ValueError(
                f"kernels[{i}] has shape {w.shape}; expected [odd, odd, {channels}, outputs] with "
                "at least one output"
            )
        channels = w.shape[3]
        _check_vector(f"biases[{i}]", bias, channels)
    if channels != state.x.shape[3]:
        raise ValueError(f"the last kernel has {channels} outputs; expected {state.x.shape[3]}")
    _check_vector("scale", chain.scale, channels)
    _check_vector("shift", chain.shift, channels)
    if state.total is not None and (share is None or tuple(share.shape) != size):
        found = None if share is None else list(share.shape)
        raise ValueError(f"share is {found}; expected float{list(size)} beside a total")
    if state.total is not None and state.total.shape != state.x.shape:
        raise ValueError(f"total has shape {state.total.shape}; expected {state.x.shape}")
    if state.sums is not None and state.sums.shape != (size[0], channels):
        raise ValueError(f"sums has shape {state.sums.shape}; expected {(size[0], channels)}")


def _check_vector(name: str, vector: Array | None, channels: int) -> None:
    if vector is not None and tuple(vector.shape) != (channels,):
        raise ValueError(f"{name} has shape {vector.shape}; expected ({channels},)")
