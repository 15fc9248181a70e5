"""Image files of any kind become the pixels that a network takes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from adaptive_nets.data.image_files import central_box, find_images, read_image


def test_pixels_of_the_right_size_are_kept(tmp_path, rng):
    grey = rng.integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png", (28, 28, 1))[..., 0], grey)
    inverted = read_image(tmp_path / "grey.png", (28, 28, 1), invert=True)
    np.testing.assert_array_equal(inverted[..., 0], 255 - grey)
    three = read_image(tmp_path / "grey.png", (28, 28, 3))
    np.testing.assert_array_equal(three, np.repeat(grey[..., None], 3, axis=-1))
    colour = rng.integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "colour.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "colour.bmp", (32, 32, 3)), colour)
    assert read_image(tmp_path / "colour.bmp", (28, 28, 1)).shape == (28, 28, 1)


def test_sixteen_bits_are_scaled(tmp_path):
    ramp = np.linspace(0, 65535, 28 * 28).reshape(28, 28).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    found = read_image(tmp_path / "ramp.png", (28, 28, 1))[..., 0]
    np.testing.assert_allclose(found, ramp / 257, atol=0.51)


def test_nothing_is_stretched(tmp_path):
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (read_image(tmp_path / "wide.png", (10, 10, 1)) == 255).all()
    assert central_box(60, 20, ratio=1.0) == (20, 0, 40, 20)
    assert central_box(20, 60, ratio=2.0) == (0, 25, 20, 35)


def test_orientation_of_cameras_and_transparency(tmp_path):
    upright = np.zeros((30, 30), np.uint8)
    upright[:10] = 255
    image = Image.fromarray(np.rot90(upright))  # Stored lying on its left side.
    exif = Image.Exif()
    exif[0x0112] = 6  # To be turned clockwise by 90 degrees.
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "turned.png", (30, 30, 1))[..., 0], upright)
    Image.new("RGBA", (9, 9), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png", (9, 9, 3)) == 255).all()


def test_a_folder_stands_for_its_images(tmp_path, complains):
    for name in ("b.png", "a.JPG", ".hidden.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / "below").mkdir()
    skipped = Counter()
    assert len(find_images([tmp_path], skipped)) == 2
    assert skipped == {"hidden files and folders": 1, "files ending in .txt": 1, "folders": 1}
    assert [p.name for p in find_images([tmp_path])] == ["a.JPG", "b.png"]
    single = tmp_path / ".hidden.png"
    assert find_images([single, tmp_path / "b.png"]) == [single, tmp_path / "b.png"]
    (tmp_path / "empty").mkdir()
    complains(lambda: find_images([tmp_path / "empty"]), "no image in it", ".png")
    complains(lambda: find_images([tmp_path / "none.png"]), "none.png does not exist")


@pytest.mark.parametrize("fault", ["text", "cut", "float", "missing", "empty"])
def test_what_is_no_image_is_named(tmp_path, complains, fault, rng):
    path = tmp_path / "image.tif"
    if fault == "text":
        path.write_text("no image")
    elif fault == "cut":
        path = tmp_path / "image.png"
        Image.fromarray(rng.integers(0, 256, (64, 64), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:900])
    elif fault == "float":
        Image.fromarray(np.ones((8, 8), np.float32)).save(path)
    elif fault == "empty":
        path.touch()
    complains(lambda: read_image(path, (8, 8, 1)), path, "expected")


def test_only_grey_and_colour(tmp_path, complains):
    complains(lambda: read_image(tmp_path / "a.png", (8, 8, 2)), "takes 2")
