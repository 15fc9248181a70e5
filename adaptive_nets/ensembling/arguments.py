"""Argument checks of this package."""

from __future__ import annotations

from typing import Any

import numpy as np

from adaptive_nets.runtime.errors import UserError

NORMALISED = 1e-3
"""Largest deviation of a sum of probabilities from 1, which half precision keeps."""


def as_real(name: str, value: Any, *, ndim: int, axes: str) -> np.ndarray:
    """Converts an array of finite or infinite real numbers to float64.

    Raises:
        UserError: it has other axes, no numbers, or NaN; the message names it.
    """
    try:
        array = np.asarray(value)
        array = array.astype(np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} is {value!r}; expected an array of numbers") from None
    if array.ndim != ndim:
        raise UserError(f"{name} has shape {array.shape}; expected {axes}")
    if np.isnan(array).any():
        raise UserError(f"{name} holds NaN; expected numbers")
    return array


def as_logits(value: Any) -> np.ndarray:
    """Converts logits or log-probabilities to float64[N, K], at least one object and class.

    Raises:
        UserError: they have another shape, no objects, NaN or +inf, or an object without a finite
            logit.
    """
    logits = as_real("logits", value, ndim=2, axes="[N, K], objects and classes")
    if 0 in logits.shape:
        raise UserError(f"logits have shape {logits.shape}; expected at least one object and class")
    if np.isposinf(logits).any() or not np.isfinite(logits).any(axis=1).all():
        raise UserError("logits are infinite; expected a finite logit of every object")
    return logits


def as_log_probs(value: Any, *, ndim: int = 2) -> np.ndarray:
    """Converts normalised log-probabilities to float64[..., N, K].

    Args:
        value: log-probabilities, nats.
        ndim: 2 for [N, K], 3 for [S, N, K].

    Raises:
        UserError: they have another shape, or the probabilities of an object do not sum to 1.
    """
    axes = {2: "[N, K], objects and classes", 3: "[S, N, K], members, objects and classes"}[ndim]
    array = as_real("log_probs", value, ndim=ndim, axes=axes)
    if 0 in array.shape:
        raise UserError(f"log_probs have shape {array.shape}; expected no empty axis of {axes}")
    with np.errstate(over="ignore"):
        sums = np.exp(array).sum(axis=-1)
    worst = sums.flat[np.argmax(np.abs(sums - 1))]
    if not abs(worst - 1) <= NORMALISED:
        raise UserError(
            f"log_probs are not normalised: the probabilities of an object sum to {worst:.4g}; "
            "expected 1 (jax.nn.log_softmax normalises logits)"
        )
    return array


def as_labels(value: Any, *, objects: int, classes: int) -> np.ndarray:
    """Converts labels to int64[N].

    Raises:
        UserError: their number differs from that of the objects, or one is no class.
    """
    try:
        labels = np.asarray(value)
    except ValueError:
        raise UserError(f"labels are ragged; expected ({objects},), one per object") from None
    if labels.shape != (objects,):
        raise UserError(f"labels have shape {labels.shape}; expected ({objects},), one per object")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels have dtype {labels.dtype}; expected integers")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise UserError(f"labels hold {int(outside[0])}; expected classes from 0 to {classes - 1}")
    return labels.astype(np.int64)
