"""Test-time policies: sub-policies in order [molchanov2020]."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from adaptive_nets.data.augmentations import (
    CIFAR_OPERATIONS,
    IMAGENET_OPERATIONS,
    OPERATIONS,
    Protocol,
    operation_index,
)
from adaptive_nets.data.augmentations.operations import SMALLEST_MAGNITUDE
from adaptive_nets.runtime.arguments import as_integer
from adaptive_nets.runtime.errors import UserError, did_you_mean


@dataclasses.dataclass(frozen=True)
class SubPolicy:
    """Operations of one view.

    Attributes:
        operations: (name, magnitude) in order; names of `OPERATIONS`.
        crop: whether a random crop and flip follow; without them and without operations the view
            is the image itself. On ImageNet a crop is the first operation instead.
    """

    operations: tuple[tuple[str, float], ...] = ()
    crop: bool = True

    def __str__(self) -> str:
        parts = [f"{name} {magnitude:.1f}" for name, magnitude in self.operations]
        return ", ".join([*parts, *(["crop and flip"] if self.crop else [])]) or "unchanged"


class PolicyArrays(NamedTuple):
    """Policy as arrays for `adaptive_nets.data.augmentations.apply_sub_policy`.

    Attributes:
        indices: int32[S, n], operations; shorter sub-policies end with the identity.
        magnitudes: float32[S, n].
        crop: bool[S], whether a random crop and flip follow.
    """

    indices: np.ndarray
    magnitudes: np.ndarray
    crop: np.ndarray


@dataclasses.dataclass(frozen=True)
class Policy:
    """Ordered sub-policies; the first k are the policy of k views.

    Attributes:
        protocol: "cifar" or "imagenet", the conventions of the operations.
        sub_policies: at least one.
        note: origin of the policy.
    """

    protocol: Protocol
    sub_policies: tuple[SubPolicy, ...]
    note: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        as_integer("the number of sub-policies", len(self.sub_policies))
        known = {operation.name for operation in operations_of(self.protocol)}
        for number, sub_policy in enumerate(self.sub_policies, start=1):
            for name, magnitude in sub_policy.operations:
                if name not in known:
                    raise UserError(
                        f"sub-policy {number} has the operation {name!r} under the protocol "
                        f"{self.protocol!r}; {did_you_mean(str(name), known)}"
                    )
                if not math.isfinite(magnitude):
                    raise UserError(
                        f"sub-policy {number} has the magnitude {magnitude} of {name}; expected a "
                        "finite number"
                    )

    def __len__(self) -> int:
        return len(self.sub_policies)

    def first(self, count: int) -> Self:
        """Returns the policy of `count` views; it begins again after its last sub-policy.

        Raises:
            UserError: the count is below 1.
        """
        count = as_integer("views", count)
        views = [self.sub_policies[i % len(self)] for i in range(count)]
        return dataclasses.replace(self, sub_policies=tuple(views))

    def arrays(self) -> PolicyArrays:
        """Returns the policy as arrays."""
        longest = max(len(s.operations) for s in self.sub_policies)
        indices = np.zeros((len(self), longest), np.int32)
        magnitudes = np.zeros((len(self), longest), np.float32)
        for row, sub_policy in enumerate(self.sub_policies):
            for column, (name, magnitude) in enumerate(sub_policy.operations):
                indices[row, column] = operation_index(name)
                magnitudes[row, column] = magnitude
        cifar = self.protocol == "cifar"
        crop = np.array([cifar and s.crop for s in self.sub_policies])
        return PolicyArrays(indices, magnitudes, crop)

    def summary(self) -> dict[str, float]:
        """Returns counts of the sub-policies and the share of strong ones.

        Returns:
            "length"; "unique", distinct sub-policies; "repeats", of the most frequent one;
            "unchanged", without operations and crop; "crops", of crop and flip alone; and "strong",
            the share with a magnitude above 20.
        """
        counts = collections.Counter((s.operations, s.crop) for s in self.sub_policies)
        strong = [any(abs(m) > 20 for _, m in s.operations) for s in self.sub_policies]
        idle = [_is_idle(s, self.protocol) for s in self.sub_policies]
        crops = [sub_policy.crop for sub_policy in self.sub_policies]
        return {
            "length": len(self),
            "unique": len(counts),
            "repeats": max(counts.values()),
            "unchanged": sum(i and not crop for i, crop in zip(idle, crops, strict=True)),
            "crops": sum(i and crop for i, crop in zip(idle, crops, strict=True)),
            "strong": float(np.mean(strong)),
        }


def operations_of(protocol: Protocol):
    """Returns the operations of a protocol, a tuple of `Operation`."""
    return CIFAR_OPERATIONS if protocol == "cifar" else IMAGENET_OPERATIONS


def from_arrays(
    indices: np.ndarray,
    magnitudes: np.ndarray,
    protocol: Protocol,
    *,
    crop: bool | np.ndarray | None = None,
    note: Mapping[str, Any] | None = None,
) -> Policy:
    """Returns a policy from arrays of operations, for example random sub-policies.

    Args:
        indices: int[S, n].
        magnitudes: float[S, n].
        protocol: conventions of the operations.
        crop: whether a random crop and flip follow, bool or bool[S]; None for the protocol's.
        note: origin of the policy.
    """
    crops = np.broadcast_to(protocol == "cifar" if crop is None else crop, (len(indices),))
    sub_policies = tuple(
        SubPolicy(
            tuple(
                (OPERATIONS[int(i)].name, float(m)) for i, m in zip(row, magnitudes_of, strict=True)
            ),
            bool(crops[number]),
        )
        for number, (row, magnitudes_of) in enumerate(zip(indices, magnitudes, strict=True))
    )
    return Policy(protocol, sub_policies, note or {})


def _is_idle(sub_policy: SubPolicy, protocol: Protocol) -> bool:
    """Returns whether no operation changes the image."""
    return all(
        name == "Identity" or (protocol == "cifar" and abs(magnitude) < SMALLEST_MAGNITUDE)
        for name, magnitude in sub_policy.operations
    )
