"""Input normalisation of networks: statistics of their training pixels, and its applied form."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class InputNormalisation:
    """Applied form of a normalisation: (pixels / pixel_scale − offset)·scale.

    Attributes:
        pixel_scale: divisor of the pixels.
        offset: float32, broadcastable to [H, W, C].
        scale: float32, broadcastable to [H, W, C].
        per_image: whether each image is standardised by its own statistics afterwards.
    """

    pixel_scale: float
    offset: np.ndarray
    scale: np.ndarray
    per_image: bool = False

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Computes the network's input from 8-bit pixels.

        Args:
            images: uint8[N, H, W, C].

        Returns:
            float32[N, H, W, C].
        """
        x = images.astype(np.float32) / np.float32(self.pixel_scale)
        x = (x - self.offset) * self.scale
        if self.per_image:
            # A constant image has no deviation; it becomes zero.
            least = np.float32(x[0].size ** -0.5) if len(x) else np.float32(1)
            axes = (1, 2, 3)
            mean, deviation = x.mean(axes, keepdims=True), x.std(axes, keepdims=True)
            x = (x - mean) / np.maximum(deviation, least)
        return x


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel of pixels in [0, 1].

    Attributes:
        mean: subtracted from the pixels.
        std: divisor of the difference.
        origin: source of both, shown beside results.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str

    def to_input_normalisation(self) -> InputNormalisation:
        """Converts to offset and scale of 8-bit pixels."""
        offset = np.asarray(self.mean, np.float64).reshape(1, 1, -1)
        scale = 1.0 / np.asarray(self.std, np.float64).reshape(1, 1, -1)
        return InputNormalisation(255.0, offset.astype(np.float32), scale.astype(np.float32))


# torchvision's and timm's weights and the common CIFAR scripts share the ImageNet statistics.
IMAGENET_STATISTICS = Normalisation(
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
    "default: ImageNet statistics, as torchvision's weights expect",
)
# The weights of Inception networks and of GoogLeNet were ported from TensorFlow.
INCEPTION_STATISTICS = Normalisation(
    (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "default for Inception networks"
)


def standard_normalisation(channels: int) -> Normalisation:
    """Returns the normalisation of models that state none: ImageNet statistics for RGB images.

    Inputs of another number of channels are pixels in [0, 1] without further normalisation.
    """
    if channels == 3:
        return IMAGENET_STATISTICS
    return Normalisation((0.0,) * channels, (1.0,) * channels, "none: pixels from 0 to 1")
