"""Digital corruptions: brightness, contrast, elastic transform, pixelation and JPEG."""

from __future__ import annotations

import io

import numpy as np
import scipy

from adaptive_nets.data.corruptions.parameters import Parameters
from adaptive_nets.data.corruptions.pixels import Generators, draw, to_bytes, to_intensities
from adaptive_nets.data.corruptions.sampling import sample_bilinear


def brightness(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Adds a constant to the value channel of HSV.

    Hue and saturation stay, so that every channel is multiplied by V' / V, where V is the largest
    of the three and V' = min(V + c, 1); black becomes grey.

    Args:
        images: uint8[N, H, W, 3].
        parameters: the constant c.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    (added,) = parameters
    pixels = to_intensities(images)
    value = pixels.max(axis=-1, keepdims=True)
    share = np.divide(pixels, value, out=np.ones_like(pixels), where=value > 0)
    return to_bytes(share * np.minimum(value + added, 1))


def contrast(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Shrinks the difference of each value to the mean of its channel in the image.

    Args:
        images: uint8[N, H, W, 3].
        parameters: share of the difference that is kept.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    (kept,) = parameters
    _, H, W, _ = images.shape
    # Sums of integers are exact, in whichever order they are added.
    means = images.sum(axis=(1, 2), keepdims=True, dtype=np.int64) / (H * W * 255)
    return to_bytes((to_intensities(images) - means) * kept + means)


def elastic_transform(
    images: np.ndarray, parameters: Parameters, generators: Generators
) -> np.ndarray:
    """Applies a random affine map, then shifts pixels by a smooth random field.

    The affine map moves three points at a third of the side from the centre by uniform amounts. The
    field is uniform noise in [-1, 1], blurred and multiplied by a scale. Both steps interpolate
    bilinearly.

    Args:
        images: uint8[N, H, W, 3].
        parameters: scale of the field, deviation of its blur, and largest move of the three points.
        generators: one for each image.

    Returns:
        uint8[N, H, W, 3].
    """
    scale, deviation, largest = parameters
    _, H, W, _ = images.shape
    moves = draw(generators, (3, 2), lambda generator: generator.uniform(-largest, largest, (3, 2)))
    rows, columns = affine_positions(moves, H, W)
    pixels = to_intensities(images, np.float32)
    pixels = sample_bilinear(pixels, rows, columns, border="mirror")
    if scale:
        field = draw(generators, (2, H, W), lambda generator: generator.uniform(-1, 1, (2, H, W)))
        widths = (0, 0, deviation, deviation)
        field = scale * scipy.ndimage.gaussian_filter(field, widths, mode="reflect", truncate=3)
        rows = np.arange(H)[None, :, None] + field[:, 0]
        columns = np.arange(W)[None, None, :] + field[:, 1]
        pixels = sample_bilinear(pixels, rows, columns, border="reflect")
    return to_bytes(pixels)


def pixelate(images: np.ndarray, parameters: Parameters, generators: Generators) -> np.ndarray:
    """Shrinks the image with a box filter and enlarges it again.

    Args:
        images: uint8[N, H, W, 3].
        parameters: share of the side that is kept.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    from PIL import Image

    (share,) = parameters
    _, H, W, _ = images.shape
    small = max(int(W * share), 1), max(int(H * share), 1)
    pixelated = np.empty_like(images)
    for n, pixels in enumerate(images):
        shrunk = Image.fromarray(pixels).resize(small, Image.Resampling.BOX)
        pixelated[n] = shrunk.resize((W, H), Image.Resampling.BOX)
    return pixelated


def jpeg_compression(
    images: np.ndarray, parameters: Parameters, generators: Generators
) -> np.ndarray:
    """Encodes and decodes the image as JPEG, with colours at half the resolution.

    Args:
        images: uint8[N, H, W, 3].
        parameters: quality, 1 to 100.
        generators: unused.

    Returns:
        uint8[N, H, W, 3].
    """
    del generators
    from PIL import Image

    (quality,) = parameters
    decoded = np.empty_like(images)
    for n, pixels in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as image:
            decoded[n] = np.asarray(image)
    return decoded


def affine_positions(moves: np.ndarray, H: int, W: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the position that each pixel is read from, under a map given by three moved points.

    The points are at a third of the shorter side from the centre: lower right, upper right and
    upper left.

    Args:
        moves: float[N, 3, 2], horizontal and vertical moves of the points, pixels.
        H: height, pixels.
        W: width, pixels.

    Returns:
        Rows and columns, both float64[N, H, W].
    """
    third = min(H, W) // 3
    centre = np.array([W // 2, H // 2])
    points = centre + third * np.array([[1, 1], [1, -1], [-1, -1]])
    # A pixel at the moved points is read from the unmoved ones.
    moved = np.concatenate([points + moves, np.ones((len(moves), 3, 1))], axis=-1)
    to_source = np.linalg.solve(moved, np.broadcast_to(points, (len(moves), 3, 2)))
    across, down = np.arange(W)[None, None, :], np.arange(H)[None, :, None]
    columns, rows = (
        across * along[:, 0, None, None] + down * along[:, 1, None, None] + along[:, 2, None, None]
        for along in np.moveaxis(to_source, -1, 0)
    )
    return rows, columns
