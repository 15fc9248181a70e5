import numpy as np
import pytest
from scipy import ndimage

from adaptive_nets.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, deviation
from adaptive_nets.data.corruptions.parameters import CIFAR, COLUMNS, IMAGENET, parameters_of
from adaptive_nets.runtime.errors import UserError

UNLIKE_OFFICIAL = {"motion_blur", "snow", "frost", "elastic_transform"}
WITHOUT_RANDOMNESS = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
}
# Kinds whose parameters are not ordered by strength: glass blur lowers the deviation at severity 4,
# and frost the weight of the image; the elastic transform exchanges affine maps for smaller waves;
# motion blur lengthens at severity 4 a tail of weights below 1e-8.
UNORDERED = {"glass_blur", "frost", "elastic_transform", "motion_blur"}


def scenes(count, height=32, width=32):
    """Images with large and small structures, like photographs."""
    noise = np.random.default_rng(8).standard_normal((count, height, width, 3))
    coarse, fine = (ndimage.gaussian_filter(noise, (0, s, s, 0), mode="wrap") * s for s in (4, 0.7))
    return np.clip(120 + 120 * coarse + 30 * fine, 0, 255).astype(np.uint8)


def strength(images, kind, severity):
    changed = corrupt(images, kind, severity)
    return np.abs(changed.astype(np.float64) - images).mean()


def test_tables_are_complete():
    assert len(CORRUPTIONS) == 15
    assert CORRUPTIONS[0] == "gaussian_noise"
    assert CORRUPTIONS[-1] == "jpeg_compression"
    assert set(CIFAR) == set(IMAGENET) == set(COLUMNS) == set(CORRUPTIONS)
    for kind in CORRUPTIONS:
        for table in (CIFAR, IMAGENET):
            assert len(table[kind]) == len(SEVERITIES)
            assert {len(parameters) for parameters in table[kind]} == {len(COLUMNS[kind])}


def test_the_longest_side_chooses_the_table():
    assert parameters_of("contrast", 1, height=64, width=32) == (0.75,)
    assert parameters_of("contrast", 1, height=32, width=65) == (0.4,)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_batches_do_not_matter(kind):
    images = scenes(7)
    given = images.copy()
    whole = corrupt(images, kind, 3, seed=5, first=100)
    assert whole.dtype == np.uint8
    assert whole.shape == images.shape
    assert (whole != images).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(images, given)
    parts = [
        corrupt(images[a:b], kind, 3, seed=5, first=100 + a) for a, b in ((0, 1), (1, 5), (5, 7))
    ]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    # Nor does the layout in memory.
    turned = np.asfortranarray(images)
    np.testing.assert_array_equal(whole, corrupt(turned, kind, 3, seed=5, first=100))


def test_blocks_do_not_matter(monkeypatch):
    images = scenes(5)
    whole = [corrupt(images, kind, 5) for kind in CORRUPTIONS]
    monkeypatch.setattr("adaptive_nets.data.corruptions.kinds._BLOCK_PIXELS", 2 * 32 * 32)
    for kind, expected in zip(CORRUPTIONS, whole, strict=True):
        np.testing.assert_array_equal(corrupt(images, kind, 5), expected, err_msg=kind)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_random_numbers_belong_to_seed_and_index(kind):
    image = scenes(1)
    same = np.repeat(image, 3, axis=0)
    results = [*corrupt(same, kind, 4), *corrupt(image, kind, 4, seed=1)]
    different = len({result.tobytes() for result in results})
    assert different == (1 if kind in WITHOUT_RANDOMNESS else 4)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_severities_grow(kind):
    images = scenes(24)
    strengths = [strength(images, kind, severity) for severity in SEVERITIES]
    assert min(strengths) > 0
    if kind not in UNORDERED:
        assert strengths == sorted(strengths)
    assert min(strengths[-2:]) > strengths[0] or kind == "elastic_transform"


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize(("height", "width"), [(33, 47), (8, 9), (71, 90)])
def test_odd_sizes(kind, height, width):
    images = scenes(2, height, width)
    changed = corrupt(images, kind, 5)
    assert changed.shape == images.shape
    assert (changed != images).any()


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_no_images(kind):
    for side in (32, 96):
        empty = np.zeros((0, side, side, 3), np.uint8)
        assert corrupt(empty, kind, 1).shape == empty.shape
        assert corrupt(empty, kind, 1).dtype == np.uint8


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_images_are_valid(kind, level):
    images = np.full((2, 32, 32, 3), level, np.uint8)
    changed = corrupt(images, kind, 5)
    if kind in {*WITHOUT_RANDOMNESS, "glass_blur", "motion_blur", "elastic_transform"}:
        expected = 76 if kind == "brightness" and level == 0 else level
        # The decoder of JPEG makes black one grey level brighter.
        tolerance = 1 if kind == "jpeg_compression" else 0
        np.testing.assert_allclose(changed, np.full_like(images, expected), atol=tolerance)


def test_deviations():
    assert {kind for kind in CORRUPTIONS if deviation(kind)} == UNLIKE_OFFICIAL
    assert "photographs of frost" in deviation("frost")


def test_mistakes_are_named():
    images = scenes(1)
    with pytest.raises(UserError, match=r"'gausian_noise' .* did you mean 'gaussian_noise'\?"):
        corrupt(images, "gausian_noise", 1)
    with pytest.raises(UserError, match="'sleet' does not exist"):
        deviation("sleet")
    for severity in (0, 6, -1, 2.5, True):
        with pytest.raises(UserError, match=rf"severity {severity} .* 1 to 5"):
            corrupt(images, "fog", severity)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="dtype float32; expected uint8"):
        corrupt(images.astype(np.float32), "fog", 1)
    for shape in ((32, 32, 3), (1, 32, 32, 1), (1, 32, 32)):
        with pytest.raises(ValueError, match=r"expected \(N, H, W, 3\)"):
            corrupt(np.zeros(shape, np.uint8), "fog", 1)
    with pytest.raises(ValueError, match="at least 8 pixels"):
        corrupt(np.zeros((1, 7, 32, 3), np.uint8), "fog", 1)
    with pytest.raises(ValueError, match="seed is -1"):
        corrupt(images, "fog", 1, seed=-1)
    with pytest.raises(ValueError, match="first is -2"):
        corrupt(images, "fog", 1, first=-2)
