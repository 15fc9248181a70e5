"""Closed forms of the corruptions, and slow versions of some, written out pixel by pixel."""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from adaptive_nets.data.corruptions import SEVERITIES, corrupt
from adaptive_nets.data.corruptions.blur import disk_kernel, glass_blur
from adaptive_nets.data.corruptions.digital import affine_positions
from adaptive_nets.data.corruptions.parameters import CIFAR, IMAGENET
from adaptive_nets.data.corruptions.pixels import to_bytes, to_intensities
from adaptive_nets.data.corruptions.sampling import (
    blur_along_lines,
    fold_indices,
    sample_bilinear,
    zoom_centre,
)
from adaptive_nets.data.corruptions.textures import fractal_clouds, frost_textures

IMAGES = np.random.default_rng(2).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
BOTH_SIDES = pytest.mark.parametrize(("table", "side"), [(CIFAR, 32), (IMAGENET, 72)])


def grey(level, count=8, side=32):
    return np.full((count, side, side, 3), level, np.uint8)


def generators(count):
    return [np.random.default_rng(i) for i in range(count)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_survive_the_conversion(dtype):
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_bytes(to_intensities(levels, dtype)), levels)
    np.testing.assert_array_equal(to_bytes(np.array([-1, 0.999, 2])), [0, 254, 255])


@BOTH_SIDES
def test_gaussian_noise_has_the_stated_deviation(table, side):
    for severity in (1, 2):  # Stronger noise is clipped.
        changed = corrupt(grey(128, side=side), "gaussian_noise", severity) / 255
        assert changed.mean() == pytest.approx(128 / 255, abs=0.004)
        expected = table["gaussian_noise"][severity - 1][0]
        assert changed.std() == pytest.approx(expected, rel=0.02)


@BOTH_SIDES
def test_shot_noise_has_the_variance_of_photons(table, side):
    (photons,) = table["shot_noise"][0]
    for level in (51, 128):
        changed = corrupt(grey(level, count=16, side=side), "shot_noise", 1) / 255
        assert changed.mean() == pytest.approx(level / 255, abs=0.004)
        assert changed.var() == pytest.approx(level / 255 / photons, rel=0.05)


@BOTH_SIDES
@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_replaces_the_stated_share(table, side, severity):
    changed = corrupt(grey(128, side=side), "impulse_noise", severity)
    (amount,) = table["impulse_noise"][severity - 1]
    assert set(np.unique(changed)) == {0, 128, 255}
    for level in (0, 255):
        assert (changed == level).mean() == pytest.approx(amount / 2, rel=0.2)


@BOTH_SIDES
@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_shifts_the_value(table, side, severity):
    (added,) = table["brightness"][severity - 1]
    changed = corrupt(grey(100, count=1, side=side), "brightness", severity)
    assert set(np.unique(changed)) == {math.floor(100 + 255 * added + 1e-4)}
    images = IMAGES[:1] if side == 32 else np.pad(IMAGES[:1], ((0, 0), (0, 40), (0, 40), (0, 0)))
    changed = corrupt(images, "brightness", severity)
    for pixel, ours in zip(images.reshape(-1, 3)[:400], changed.reshape(-1, 3), strict=False):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        rgb = colorsys.hsv_to_rgb(hue, saturation, min(value + added, 1))
        np.testing.assert_array_less(np.abs(255 * np.array(rgb) - 0.5 - ours), 0.501)


@BOTH_SIDES
def test_contrast_keeps_the_mean_and_shrinks_the_rest(table, side):
    np.testing.assert_array_equal(corrupt(grey(77, side=side), "contrast", 5), grey(77, side=side))
    images = np.tile(np.array([40, 200], np.uint8)[:, None], (2, side, side // 2, 3))
    for severity, (kept,) in enumerate(table["contrast"], start=1):
        levels = np.unique(corrupt(images, "contrast", severity))
        np.testing.assert_array_equal(levels, [120 - int(80 * kept), 120 + int(80 * kept)])


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_and_pixelate_are_pillows(severity):
    (quality,), (share,) = CIFAR["jpeg_compression"][severity - 1], CIFAR["pixelate"][severity - 1]
    encoded = corrupt(IMAGES, "jpeg_compression", severity)
    pixelated = corrupt(IMAGES, "pixelate", severity)
    for n, pixels in enumerate(IMAGES):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(quality))
        with Image.open(file) as image:
            np.testing.assert_array_equal(encoded[n], np.asarray(image))
        side = int(32 * share)
        small = Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX))
        np.testing.assert_array_equal(pixelated[n], expected)


def test_pixelate_makes_equal_blocks():
    images = np.random.default_rng(0).integers(0, 256, (1, 80, 80, 3), dtype=np.uint8)
    blocks = corrupt(images, "pixelate", 5).reshape(20, 4, 20, 4, 3)  # A quarter of the side.
    assert (blocks == blocks[:, :1, :, :1]).all()
    means = images.reshape(20, 4, 20, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(blocks[:, 0, :, 0], means, atol=1)


def test_disks():
    assert disk_kernel(1.5, 0.1) == pytest.approx(np.full((3, 3), 1 / 9))
    assert disk_kernel(3, 0.1) == pytest.approx(np.where(disk_kernel(3, 0.1) > 1e-6, 1 / 29, 0))
    for parameters in (*CIFAR["defocus_blur"], *IMAGENET["defocus_blur"][:3]):
        kernel = disk_kernel(*parameters)
        assert kernel.sum() == pytest.approx(1)
        np.testing.assert_allclose(kernel, kernel.T)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1])
    # Below a radius of one pixel, the smoothing alone remains.
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * 0.4**2))
    assert disk_kernel(0.3, 0.4) == pytest.approx(np.outer(taps, taps) / taps.sum() ** 2)
    # Disks that touch the border of the grid weigh more, as in the official generator.
    assert disk_kernel(8, 0.5).sum() == pytest.approx(1.01298, abs=1e-5)
    assert disk_kernel(10, 0.5).sum() == pytest.approx(1.01079, abs=1e-5)


def test_defocus_averages_the_disk():
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 10, 20] = 252
    changed = corrupt(image, "defocus_blur", 5)
    expected = np.zeros_like(image)
    expected[0, 9:12, 19:22] = 28
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize("parameters", [(0.25, 1, 2), (0.4, 1, 2), (1.1, 3, 2)])
def test_glass_blur_copies_pixels_in_order(parameters):
    deviation, shift, passes = parameters
    side, images = 12, IMAGES[:2, :12, :12]

    def blurred(image):
        return ndimage.gaussian_filter(image / 255, (deviation, deviation, 0), mode="nearest")

    expected = []
    for image, generator in zip(images, generators(2), strict=True):
        image = to_bytes(blurred(image))
        span = range(side - shift, shift, -1)
        moves = generator.integers(-shift, shift, (passes, len(span), len(span), 2))
        for step in range(passes):
            for a, row in enumerate(span):
                for b, column in enumerate(span):
                    down, right = moves[step, a, b]
                    image[row, column] = image[row + down, column + right]
        expected.append(to_bytes(blurred(image)))
    np.testing.assert_array_equal(glass_blur(images, parameters, generators(2)), expected)


def test_lines_blur_in_their_direction():
    image = np.zeros((1, 21, 21, 1), np.uint8)
    image[0, 10, 10] = 255
    weights = np.exp(-(np.arange(5) ** 2) / 8)
    levels = np.floor(255 * weights / weights.sum() + 0.5)
    for angle, (down, right) in {0: (0, 1), 90: (1, 0), -45: (-1, 1), 180: (0, -1)}.items():
        changed = blur_along_lines(image, np.array([angle]), radius=2, deviation=2)[0, ..., 0]
        # A pixel reads along the line, so that light spreads against it.
        reached = 4 if angle != -45 else 3
        for i in range(reached):
            along = i if angle != -45 else round(i * math.sqrt(0.5))
            place = changed[10 - along * down, 10 - along * right]
            expected = levels[i] if angle != -45 else place
            assert place == expected > 0
        assert abs(int(changed.sum()) - 255) <= 3
    np.testing.assert_array_equal(
        blur_along_lines(grey(93), np.linspace(-180, 180, 8), radius=4, deviation=3), grey(93)
    )


def test_zoom_agrees_with_scipy():
    images = to_intensities(IMAGES)
    for factor in (1.0, 1.03, 1.11, 1.25, 1.75, 2.25, 4.0):
        cropped = math.ceil(32 / factor)
        start = (32 - cropped) // 2
        inner = images[0, start : start + cropped, start : start + cropped]
        large = np.asarray(ndimage.zoom(inner, (factor, factor, 1), order=1))
        trim = (large.shape[0] - 32) // 2
        expected = large[trim : trim + 32, trim : trim + 32]
        np.testing.assert_allclose(zoom_centre(images, factor)[0], expected, atol=1e-12)


def test_zoom_blur_averages_zooms():
    factors = [1, *np.arange(1, 1.06, 0.01)]
    assert len(factors) == 8
    images = to_intensities(IMAGES)
    expected = to_bytes(np.mean([zoom_centre(images, factor) for factor in factors], axis=0))
    changed = corrupt(IMAGES, "zoom_blur", 1)
    assert np.abs(changed.astype(int) - expected).max() <= 1
    assert (changed != expected).mean() < 0.001


@pytest.mark.parametrize("border", ["mirror", "reflect"])
def test_sampling_agrees_with_scipy(border, rng):
    images = rng.random((2, 7, 9, 3))
    rows, columns = rng.uniform(-12, 18, (2, 2, 5, 6))
    sampled = sample_bilinear(images, rows, columns, border=border)
    for n in range(2):
        for channel in range(3):
            positions = [rows[n], columns[n]]
            plane = images[n, ..., channel]
            expected = ndimage.map_coordinates(plane, positions, order=1, mode=border)
            np.testing.assert_allclose(sampled[n, ..., channel], np.asarray(expected), atol=1e-12)


def test_borders():
    positions = np.arange(-4, 7)
    assert fold_indices(positions, 3, "mirror").tolist() == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert fold_indices(positions, 3, "reflect").tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    assert fold_indices(positions, 1, "mirror").tolist() == [0] * 11


def test_elastic_transform_moves_smoothly():
    # A ramp moved by the mildest parameters stays a ramp: an affine map of it is one.
    levels = np.arange(0, 256, 8, dtype=np.uint8)
    ramp = np.broadcast_to(levels[:, None, None], (4, 32, 32, 3)).copy()
    inner = corrupt(ramp, "elastic_transform", 1)[:, 10:22, 10:22].astype(int)
    steps = np.diff(inner, axis=1)
    assert np.ptp(steps, axis=(1, 2, 3)).max() <= 1
    assert steps.mean() == pytest.approx(8, abs=2)


def test_affine_maps_read_the_points_where_they_moved():
    moves = np.array([[[1, -2], [0, 3], [-2, 1]]])
    rows, columns = affine_positions(moves, 32, 48)
    points = np.array([[24 + 10, 16 + 10], [24 + 10, 16 - 10], [24 - 10, 16 - 10]])
    for (column, row), (right, down) in zip(points, moves[0], strict=True):
        assert rows[0, row + down, column + right] == pytest.approx(row)
        assert columns[0, row + down, column + right] == pytest.approx(column)


def test_clouds_follow_the_recursion():
    clouds = fractal_clouds(generators(2), 4, 2.0)
    assert clouds.shape == (2, 4, 4)
    assert clouds.min(axis=(1, 2)).tolist() == [0, 0]
    assert clouds.max(axis=(1, 2)).tolist() == [1, 1]
    noise = np.random.default_rng(1).uniform(-1, 1, 15) * ([1e4] * 3 + [2500] * 12)
    m = np.zeros((4, 4))
    m[2, 2] = noise[0]
    m[0, 2] = (2 * m[0, 0] + 2 * m[2, 2]) / 4 + noise[1]
    m[2, 0] = (2 * m[0, 0] + 2 * m[2, 2]) / 4 + noise[2]
    for i, (row, column) in enumerate(np.ndindex(2, 2)):
        corners = m[np.ix_([2 * row, (2 * row + 2) % 4], [2 * column, (2 * column + 2) % 4])]
        m[2 * row + 1, 2 * column + 1] = corners.mean() + noise[3 + i]
    for i, (row, column) in enumerate(np.ndindex(2, 2)):
        above, across = m[2 * row, 2 * column], m[2 * row, (2 * column + 2) % 4]
        below = m[(2 * row + 2) % 4, 2 * column]
        centre = m[2 * row + 1, 2 * column + 1]
        m[2 * row, 2 * column + 1] = (
            above + across + centre + m[2 * row - 1, 2 * column + 1]
        ) / 4 + noise[7 + i]
        m[2 * row + 1, 2 * column] = (
            above + below + centre + m[2 * row + 1, 2 * column - 1]
        ) / 4 + noise[11 + i]
    m -= m.min()
    np.testing.assert_allclose(clouds[1], m / m.max(), atol=1e-12)


def test_fog_keeps_the_range():
    changed = corrupt(IMAGES, "fog", 5)
    assert changed.max() <= IMAGES.max()
    # The darkest a pixel gets is x max / (max + weight), where there are no clouds.
    assert (changed >= np.floor(IMAGES / 2.5)).all()
    assert corrupt(grey(0), "fog", 5).max() == 0


def test_frost_adds_a_cut_of_a_texture():
    textures = frost_textures()
    assert textures.dtype == np.uint8
    assert not textures.flags.writeable
    assert 60 < textures.mean() < 190
    ice = corrupt(grey(0, count=1), "frost", 1)[0]
    small = textures[:, 2::5, 2::5] / 255
    small = np.pad(small, ((0, 0), (0, 32), (0, 32), (0, 0)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(to_bytes(0.2 * small), (32, 32), (1, 2))
    assert (windows == ice.transpose(2, 0, 1)).all(axis=(-3, -2, -1)).sum() >= 1


def test_snow_only_brightens():
    changed = corrupt(IMAGES, "snow", 3).astype(int)
    assert (changed >= IMAGES.astype(int) - 1).all()
    assert corrupt(grey(0), "snow", 1).min() == 6  # 5 % of half the range, without flakes.
