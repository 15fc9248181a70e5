"""Slices of convolution kernels, and their collection from trained source networks.

The slice of an input channel c and an output channel o is the array float[h, w] of the weights
between them. The prior takes slices as independent and identically distributed, so the widths of
source and target networks may differ [atanov2019].
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError
from adaptive_nets.runtime.pytrees import path_name

Layout = Literal["OIHW", "HWIO"]
"""Axes of a kernel: [O, C, h, w] or, as linen's convolutions have it, [h, w, C, O]."""

LEAST_NORMS = {(7, 7): 0.39, (5, 5): 0.13}
"""Norms below which the kernels released with [atanov2019] hold no slice, by kernel size. The
authors' pruning script is not released; the values are the least norms found in their files."""

_KERNEL = "kernel"


def to_slices(kernel: Float[Any, "..."], layout: Layout = "HWIO") -> Float[Array, "N h w"]:
    """Returns the slices of a kernel, float[O·C, h, w]; the output channel varies slowest.

    Args:
        kernel: float[h, w, C, O] or, with layout "OIHW", float[O, C, h, w].
        layout: order of its axes.

    Raises:
        UserError: the kernel has not four axes, or the layout is unknown.
    """
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 4:
        raise UserError(f"kernel has shape {kernel.shape}; expected four axes, {layout}")
    if layout not in ("OIHW", "HWIO"):
        raise UserError(f"layout is {layout!r}; expected 'OIHW' or 'HWIO'")
    if layout == "HWIO":
        kernel = kernel.transpose(3, 2, 0, 1)
    outputs, inputs, *size = kernel.shape
    return kernel.reshape(outputs * inputs, *size)


def from_slices(slices: Float[Any, "N h w"], shape: tuple[int, ...]) -> Float[Array, "h w C O"]:
    """Inverts `to_slices`.

    Args:
        slices: float[O·C, h, w].
        shape: (h, w, C, O).

    Raises:
        UserError: the slices do not fill a kernel of this shape.
    """
    slices = jnp.asarray(slices)
    if len(shape) != 4 or slices.shape != (shape[2] * shape[3], *shape[:2]):
        raise UserError(
            f"slices have shape {slices.shape}; expected (C*O, h, w) of a kernel (h, w, C, O), "
            f"found {tuple(shape)}"
        )
    height, width, inputs, outputs = shape
    return slices.reshape(outputs, inputs, height, width).transpose(2, 3, 1, 0)


def convolution_kernels(params: Any, *, layers: str = "*") -> Iterator[tuple[str, Any]]:
    """Yields (path, kernel) of every convolution of a linen parameter tree.

    Args:
        params: parameter tree; a convolution has a leaf ``kernel`` of four axes.
        layers: pattern of the paths of layers, such as "conv*" or "stage1/*".
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        *parents, name = path_name(path).split("/")
        layer = "/".join(parents)
        if name == _KERNEL and np.ndim(leaf) == 4 and fnmatch.fnmatchcase(layer, layers):
            yield layer, leaf


@dataclasses.dataclass(frozen=True)
class SourceSlices:
    """Slices collected from source networks.

    Attributes:
        slices: float32[N, h, w], the slices kept, in the order of networks, layers, outputs and
            inputs.
        found: number of slices before the drop of small ones.
        least_norm: least L2 norm of a slice kept.
    """

    slices: Float[np.ndarray, "N h w"]
    found: int
    least_norm: float

    @property
    def share_kept(self) -> float:
        """Returns the fraction of the slices found that was kept."""
        return len(self.slices) / self.found if self.found else 0.0

    def split(
        self, held_out: float = 0.2, *, seed: int = 0
    ) -> tuple[Float[np.ndarray, "M h w"], Float[np.ndarray, "K h w"]]:
        """Splits the slices at random into a training and a held-out part.

        Args:
            held_out: fraction of the slices held out, rounded to the nearest count.
            seed: seed of the permutation.

        Raises:
            UserError: the fraction is outside [0, 1).
        """
        if not 0 <= held_out < 1:
            raise UserError(f"held_out is {held_out!r}; expected a fraction in [0, 1)")
        order = np.random.default_rng(seed).permutation(len(self.slices))
        count = len(order) - round(held_out * len(order))
        return self.slices[order[:count]], self.slices[order[count:]]


def collect_slices(
    trees: Iterable[Any],
    kernel_size: tuple[int, int],
    *,
    layers: str = "*",
    stacked: bool = False,
    least_norm: float = 0.0,
    relative: float = 0.0,
    at_least: int = 1,
) -> SourceSlices:
    """Collects the slices of all convolutions of one kernel size from many networks.

    L2 regularisation makes most slices of a source network vanish. A slice is kept if its L2 norm
    is positive and at least max(`least_norm`, `relative`·the largest norm found). `LEAST_NORMS` has
    the absolute norms of the released kernels; `relative` suits other schedules and widths.

    Args:
        trees: parameter trees of the source networks.
        kernel_size: (h, w).
        layers: pattern of the paths of layers, such as "conv1".
        stacked: whether each tree holds many networks along the first axis of every leaf, as
            `jax.vmap` over seeds returns them.
        least_norm: least L2 norm of a slice.
        relative: least L2 norm as a fraction of the largest, in [0, 1].
        at_least: number of slices that must be kept.

    Raises:
        UserError: an argument is out of range, a kernel is not finite, or fewer than `at_least`
            slices are kept.

    Example:
        >>> import numpy as np
        >>> tree = {"conv1": {"kernel": np.ones((3, 3, 2, 4), np.float32)}}
        >>> collect_slices([tree, tree], (3, 3)).slices.shape
        (16, 3, 3)
    """
    for name, value, most in (("least_norm", least_norm, math.inf), ("relative", relative, 1.0)):
        if not 0 <= value <= most or math.isinf(value):
            upper = "" if most == math.inf else " and at most 1"
            raise UserError(f"{name} is {value!r}; expected a number of at least 0{upper}")
    as_integer("at_least", at_least, at_least=0)
    pieces = [np.zeros((0, *kernel_size), np.float32)]
    for tree in trees:
        for member in _members(tree) if stacked else (tree,):
            pieces += _slices_of(member, tuple(kernel_size), layers)
    slices = np.concatenate(pieces)
    # Squares of float32 slices of vanished kernels underflow.
    norms = np.sqrt(np.sum(np.square(slices, dtype=np.float64), axis=(1, 2)))
    threshold = max(float(least_norm), float(relative) * float(norms.max(initial=0.0)))
    kept = slices[(norms >= threshold) & (norms > 0)]
    if len(kept) < at_least:
        size = "x".join(map(str, kernel_size))
        raise UserError(
            f"{len(kept):,} of {len(slices):,} source slices of size {size} have a norm of at "
            f"least {threshold:.3g}; expected {at_least:,}: train more or wider source networks, "
            "or lower the least norm"
        )
    return SourceSlices(kept, len(slices), threshold)


def _members(tree: Any) -> Iterator[Any]:
    """Yields the networks of a tree whose leaves have them along the first axis."""
    tree = jax.device_get(tree)
    sizes = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    if sizes and (len(sizes) > 1 or () in sizes):
        raise UserError(
            "a stacked tree has leaves of different first axes; expected one network each"
        )
    for index in range(max((size[0] for size in sizes), default=0)):
        yield jax.tree.map(lambda leaf, index=index: leaf[index], tree)


def _slices_of(tree: Any, kernel_size: tuple[int, ...], layers: str) -> list[np.ndarray]:
    found = []
    for layer, kernel in convolution_kernels(tree, layers=layers):
        if kernel.shape[:2] == kernel_size:
            slices = np.asarray(to_slices(kernel), np.float32)
            if not np.isfinite(slices).all():
                raise UserError(f"the kernel of {layer} is not finite; expected finite weights")
            found.append(slices)
    return found
