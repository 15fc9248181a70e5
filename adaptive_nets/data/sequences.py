"""Synthetic sequences as small images with one row per time step."""

from __future__ import annotations

import numpy as np

from adaptive_nets.data.splits import Dataset, Split, digest, fingerprint

PARITY = "parity"
"""Name of the set that `parity` generates."""


def parity(
    *, train: int = 20000, test: int = 2000, steps: int = 3, bits: int = 5, seed: int = 1
) -> Dataset:
    """Generates the running-parity task of graves2016.

    The vector of each time step starts with a random number, 1 to `bits`, of entries ±1 and is
    padded with zeros. The answer to a step is 1 if the number of +1 in this and all earlier steps
    is odd. The number of non-zero entries is the difficulty of the step.

    Args:
        train: number of training sequences.
        test: number of test sequences.
        steps: number T of time steps.
        bits: size of the vectors.
        seed: seed of all sequences.

    Returns:
        Images uint8[N, T, bits, 1] with 0, 1, 2 for −1, 0, +1; bit t of the label is the answer to
        step t.
    """
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        numbers = rng.integers(1, bits + 1, (count, steps, 1))
        signs = 2 * rng.integers(0, 2, (count, steps, bits)) - 1
        values = np.where(np.arange(bits) < numbers, signs, 0)
        odd = np.cumsum((values == 1).sum(axis=2), axis=1) % 2
        labels = (odd << np.arange(steps)).sum(axis=1)
        return Split((values + 1).astype(np.uint8)[..., None], labels.astype(np.int32))

    splits = {"train": split(train), "test": split(test)}
    return Dataset(
        name=PARITY,
        source="generated",
        location="a rule",
        num_classes=2**steps,
        class_names=tuple(f"{label:0{steps}b}"[::-1] for label in range(2**steps)),
        train=splits["train"],
        test=splits["test"],
        fingerprint=fingerprint({name: digest(part) for name, part in splits.items()}),
        complete=True,
    )


def difficulty(images: np.ndarray) -> np.ndarray:
    """Returns the number of non-zero entries at each time step, int[N, T].

    Args:
        images: uint8[N, T, bits, 1].
    """
    return (images[..., 0] != 1).sum(axis=2)
