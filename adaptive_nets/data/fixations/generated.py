"""Generated pictures with fixations, for tests and for trying a command without data."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from adaptive_nets.data.fixations.sets import FixationExample


@dataclasses.dataclass(frozen=True)
class GeneratedFixations:
    """Pictures of one bright disc on noise, with fixations around the disc.

    It has the attributes and methods of `FixationSet`.

    Attributes:
        size: number of pictures.
        shape: (H, W) of the pictures.
        points: number of fixations of each picture.
        name: name of the set.
        location: where it is, for people.
        complete: False: it stands for no published set.
    """

    size: int = 8
    shape: tuple[int, int] = (48, 64)
    points: int = 20
    name: str = "generated"
    location: str = "a rule"
    complete: bool = False

    @property
    def categories(self) -> tuple[str, ...]:
        """Category of each picture, alternating between two."""
        return tuple(("even", "odd")[i % 2] for i in range(self.size))

    def first(self, count: int) -> GeneratedFixations:
        """Returns the first pictures, at most `count`."""
        return dataclasses.replace(self, size=min(count, self.size))

    def read(self, number: int) -> FixationExample:
        """Generates a picture and its fixations.

        Args:
            number: number of the picture, from 0; its seed.
        """
        rng = np.random.default_rng(number)
        height, width = self.shape
        centre = rng.uniform(0.25, 0.75, 2) * self.shape
        rows, columns = np.arange(height) - centre[0], np.arange(width)[:, None] - centre[1]
        squared = (rows**2 + columns**2).T
        radius = min(self.shape) / 6
        image = rng.integers(0, 100, (height, width, 3))
        image[squared < radius**2] += rng.integers(80, 150, 3)
        density = np.exp(-squared / (2 * radius**2)) + 1e-3
        chosen = rng.choice(
            density.size, self.points, replace=False, p=(density / density.sum()).ravel()
        )
        fixated = np.zeros(density.size, np.bool_)
        fixated[chosen] = True
        return FixationExample(
            f"{number:03}",
            image.astype(np.uint8),
            fixated.reshape(self.shape),
            (255 * density / density.max()).astype(np.float32),
        )

    def fingerprint(self) -> str:
        """Computes the sha256, hex, of the rule's arguments."""
        return hashlib.sha256(repr(self).encode()).hexdigest()
