"""Linear classifiers of embeddings: multinomial logistic regression and heads of networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize
from scipy.special import log_softmax

from adaptive_nets.ensembling.arguments import as_labels, as_real
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError

# Relative decrease of the loss at which L-BFGS stops even if the gradient is larger.
_LEAST_DECREASE = {"float64": 1e-11, "float32": 1e-9}
# Numbers of vectors that L-BFGS keeps.
_HISTORY = 20


@dataclasses.dataclass(frozen=True)
class LinearHead:
    """Linear classifier of embeddings: logits W·a + b.

    The logits of a mean of embeddings are the mean of the embeddings' logits.

    Attributes:
        kernel: float[D, K], transpose of W.
        bias: float[K].
    """

    kernel: Float[np.ndarray, "D K"]
    bias: Float[np.ndarray, " K"]

    def logits(self, embeddings: Float[Any, "N D"]) -> Float[np.ndarray, "N K"]:
        """Computes logits, float64[N, K].

        Raises:
            UserError: the embeddings have another size.
        """
        array = as_real("embeddings", embeddings, ndim=2, axes="[N, D]")
        if array.shape[1] != len(self.kernel):
            raise UserError(
                f"embeddings have {array.shape[1]} values each; expected {len(self.kernel)}, the "
                "inputs of the linear head"
            )
        return array @ self.kernel + self.bias

    def log_probs(self, embeddings: Float[Any, "N D"]) -> Float[np.ndarray, "N K"]:
        """Computes log-probabilities, float64[N, K], nats."""
        return log_softmax(self.logits(embeddings), axis=-1)


def fit_linear_probe(
    embeddings: Float[Any, "N D"],
    labels: Int[Any, " N"],
    *,
    num_classes: int,
    penalty: float,
    start: LinearHead | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-6,
    dtype: Any = np.float64,
) -> LinearHead:
    """Fits multinomial logistic regression to standardised embeddings.

    It minimises −(1/N) Σ_n log p(y_n | a_n) + (λ/2)·||W||², where W are the weights of embeddings
    with mean 0 and deviation 1 in every dimension; the bias has no penalty. The optimiser is
    L-BFGS on the full batch, so the result is deterministic. The standardisation is part of the
    returned weights.

    Args:
        embeddings: float[N, D].
        labels: int[N].
        num_classes: number of classes K.
        penalty: λ >= 0.
        start: weights from which the optimisation starts; zeros by default.
        max_iterations: number of iterations after which the optimisation stops.
        tolerance: largest component of the gradient at which it stops.
        dtype: float64, or float32 for products that take a quarter of the time; sums over
            examples and the optimiser's own numbers are in float64.

    Raises:
        UserError: no embeddings, embeddings that are not finite, labels outside the classes, or a
            negative penalty.

    Example:
        >>> import numpy as np
        >>> head = fit_linear_probe([[-1.0], [1.0]], [0, 1], num_classes=2, penalty=0.1)
        >>> np.argmax(head.logits([[-3.0], [2.0]]), axis=1).tolist()
        [0, 1]
    """
    array, labels = _checked(embeddings, labels, num_classes)
    if not 0 <= penalty < math.inf:
        raise UserError(f"penalty is {penalty!r}; expected a number of at least 0")
    mean, scale = array.mean(axis=0), array.std(axis=0)
    # A constant dimension says nothing; its weights stay 0 under a penalty.
    scale = np.where(scale > 0, scale, 1.0)
    array = ((array - mean) / scale).astype(dtype)
    size, dimensions = array.shape
    rows = np.arange(size)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(dimensions + 1, num_classes)
        kernel = weights[:-1]
        logits = array @ kernel.astype(dtype)
        logits += weights[-1].astype(dtype)
        logits -= logits.max(axis=1, keepdims=True)
        value = -logits[rows, labels].mean(dtype=np.float64)
        np.exp(logits, out=logits)
        sums = logits.sum(axis=1, keepdims=True)
        value += np.log(sums).mean(dtype=np.float64) + 0.5 * penalty * np.sum(kernel**2)
        logits /= sums
        logits[rows, labels] -= 1
        gradient = np.empty_like(weights)
        gradient[:-1] = (array.T @ logits) / size + penalty * kernel
        gradient[-1] = logits.mean(axis=0, dtype=np.float64)
        return float(value), gradient.ravel()

    first = np.zeros((dimensions + 1, num_classes))
    if start is not None:
        first[:-1] = start.kernel * scale[:, None]
        first[-1] = start.bias + mean @ start.kernel
    options = {
        "maxiter": as_integer("max_iterations", max_iterations),
        "maxfun": 4 * max_iterations,
        "maxcor": _HISTORY,
        "gtol": tolerance,
        "ftol": _LEAST_DECREASE[np.dtype(dtype).name],
    }
    found = optimize.minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    weights = found.x.reshape(dimensions + 1, num_classes)
    kernel = weights[:-1] / scale[:, None]
    return LinearHead(kernel, weights[-1] - mean @ kernel)


def choose_penalty(
    embeddings: Float[Any, "N D"],
    labels: Int[Any, " N"],
    penalties: Sequence[float],
    *,
    num_classes: int,
    held_out: float = 0.1,
    seed: int = 0,
    **options: Any,
) -> tuple[float, LinearHead]:
    """Chooses the penalty with the highest log-likelihood on a held-out part of the training set.

    The fits go from the largest penalty to the smallest, each from the weights of the one before.

    Args:
        embeddings: float[N, D], of the training set.
        labels: int[N].
        penalties: candidates.
        num_classes: number of classes.
        held_out: fraction of the examples that are held out.
        seed: seed of their choice.
        **options: further options of `fit_linear_probe`.

    Returns:
        The penalty, and the probe that is fitted to the other examples.

    Raises:
        UserError: no penalties, or a part without examples.
    """
    array, labels = _checked(embeddings, labels, num_classes)
    if not len(penalties):
        raise UserError("penalties are empty; expected at least one")
    order = np.random.default_rng(seed).permutation(len(array))
    count = round(held_out * len(array))
    if not 0 < count < len(array):
        raise UserError(
            f"held_out is {held_out} of {len(array)} examples; expected a fraction that leaves "
            "examples in both parts"
        )
    test, train = order[:count], order[count:]
    head, best = None, None
    for penalty in sorted(penalties, reverse=True):
        head = fit_linear_probe(
            array[train], labels[train], num_classes=num_classes, penalty=penalty, start=head,
            **options,
        )  # fmt: skip
        value = head.log_probs(array[test])[np.arange(count), labels[test]].mean()
        if best is None or value > best[0]:
            best = (value, penalty, head)
    assert best is not None
    return best[1], best[2]


def _checked(embeddings: Any, labels: Any, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    array = as_real("embeddings", embeddings, ndim=2, axes="[N, D]")
    if 0 in array.shape:
        raise UserError(f"embeddings have shape {array.shape}; expected at least one, with D >= 1")
    if not np.isfinite(array).all():
        raise UserError("embeddings hold infinite numbers; expected finite ones")
    classes = as_integer("num_classes", num_classes)
    return array, as_labels(labels, objects=len(array), classes=classes)
