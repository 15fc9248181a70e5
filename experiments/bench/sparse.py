"""Times products with pruned matrices: dense, kept weights alone, and JAX's own sparse format."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse as jax_sparse

from adaptive_nets.layers.sparse_product import sparse_kernel, sparse_product

DENSE, OURS, BCOO = "dense", "kept weights", "BCOO"
SHAPES = ((784, 300), (800, 500), (2048, 2048))
"""First dense layers of LeNet-300-100 and LeNet-5-Caffe, and a larger square one."""
# Work that one timing repeats, so that it takes about a millisecond at least.
_SECONDS = 1e-3


@dataclasses.dataclass(frozen=True)
class ProductTime:
    """Times of one contender.

    Attributes:
        inputs: number of inputs.
        outputs: number of outputs.
        sparsity: share of weights that are 0.
        most: largest number of kept weights of an output.
        batch: rows of the batch.
        contender: form of the product.
        seconds: median time.
        ratio: median over rounds of the dense product's time over this one's in the same round.
        rounds: number of rounds, in which contenders take turns.
    """

    inputs: int
    outputs: int
    sparsity: float
    most: int
    batch: int
    contender: str
    seconds: float
    ratio: float
    rounds: int


def pruned_matrix(inputs: int, outputs: int, sparsity: float, *, seed: int = 0) -> np.ndarray:
    """Draws a matrix, float32[I, O], whose weights are 0 with the given probability."""
    generator = np.random.default_rng(seed)
    kept = generator.random((inputs, outputs)) >= sparsity
    return np.where(kept, generator.normal(size=kept.shape), 0).astype(np.float32)


def _contenders(matrix: np.ndarray, x: jax.Array) -> dict[str, Callable[[], Any]]:
    dense, kept = jnp.asarray(matrix), sparse_kernel(matrix)
    transposed = jax_sparse.BCOO.fromdense(jnp.asarray(matrix.T))
    programs = {
        DENSE: (jax.jit(lambda x, w: x @ w), dense),
        OURS: (jax.jit(sparse_product), kept),
        BCOO: (jax.jit(lambda x, w: (w @ x.T).T), transposed),
    }
    return {
        name: (lambda program=program, weights=weights: program(x, weights))
        for name, (program, weights) in programs.items()
    }


def _timed(call: Callable[[], Any], repetitions: int) -> float:
    began = time.perf_counter()
    for _ in range(repetitions):
        found = call()
    jax.block_until_ready(found)
    return (time.perf_counter() - began) / repetitions


def time_products(
    shapes: Sequence[tuple[int, int]],
    *,
    sparsities: Sequence[float],
    batches: Sequence[int],
    rounds: int,
) -> Iterator[ProductTime]:
    """Times products in turns and yields the times of all contenders, case by case.

    Args:
        shapes: (inputs, outputs) of the matrices.
        sparsities: shares of weights that are 0.
        batches: numbers of rows.
        rounds: number of timings of each contender.
    """
    for inputs, outputs in shapes:
        for sparsity in sparsities:
            matrix = pruned_matrix(inputs, outputs, sparsity)
            most = sparse_kernel(matrix).most
            for batch in batches:
                x = jax.random.normal(jax.random.key(batch), (batch, inputs))
                calls = _contenders(matrix, x)
                repetitions = {}
                for name, call in calls.items():
                    jax.block_until_ready(call())
                    repetitions[name] = max(1, round(_SECONDS / _timed(call, 1)))
                times: dict[str, list[float]] = {name: [] for name in calls}
                for _ in range(rounds):
                    for name, call in calls.items():
                        times[name].append(_timed(call, repetitions[name]))
                for name, found in times.items():
                    ratios = [a / b for a, b in zip(times[DENSE], found, strict=True)]
                    yield ProductTime(
                        inputs, outputs, sparsity, most, batch, name, statistics.median(found),
                        statistics.median(ratios), rounds,
                    )  # fmt: skip
